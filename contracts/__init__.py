"""What everybody agrees on. Imports the standard library, numpy and pydantic, nothing else."""
