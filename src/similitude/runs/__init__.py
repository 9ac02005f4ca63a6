"""A run and its folder: what is written, read, resumed and started from."""
