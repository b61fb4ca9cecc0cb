"""Events for the stack: a shop's own file, or a generated shop."""
