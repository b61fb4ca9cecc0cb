"""What makes Feast exact and fast: its online layout, read and written directly; its historical
retrieval, checked; its store, opened from the settings."""
