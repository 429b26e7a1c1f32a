"""What a file replaces of its base: whole weights and the rows of single tokens."""
