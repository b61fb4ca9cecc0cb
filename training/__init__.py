"""Training: from the offline tables to a release that may take traffic."""
