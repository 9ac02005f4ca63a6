"""Graphs: nodes with features, and edges between them."""
