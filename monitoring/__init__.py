"""What the MLOps team reads: whether what is served still looks like what was learned from."""
