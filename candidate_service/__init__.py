"""Candidate sources, their merge, and the index that holds what they need."""
