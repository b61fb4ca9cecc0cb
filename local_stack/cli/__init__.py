"""The command `./nextclick`."""
