"""Texts: as tokens of a vocabulary that is learned from them."""
