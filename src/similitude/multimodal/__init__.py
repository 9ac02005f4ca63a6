"""Several sensors of one thing: a table that names for each sample its files and texts."""
