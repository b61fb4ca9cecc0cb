"""The session encoder, learned offline: item vectors, and how a visit's items make a query of them.

JAX (the extra `encoder`) is imported where it is used; serving needs numpy and FAISS alone.
"""
