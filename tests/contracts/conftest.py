"""Fewer examples, and no time limit for each: the machine may be busy."""

from hypothesis import settings

settings.register_profile("contracts", max_examples=50, deadline=None)
settings.load_profile("contracts")
