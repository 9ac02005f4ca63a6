"""Sounds: files to wave forms, wave forms to spectrograms, and the networks made for them."""
