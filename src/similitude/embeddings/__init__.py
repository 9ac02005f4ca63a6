"""Embeddings: made of any number of samples, written, searched, and used in code of your own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from similitude.embeddings.encoder import ColumnEncoder, SimilitudeEncoder
    from similitude.embeddings.extraction import embed
    from similitude.embeddings.groups import duplicate_groups
    from similitude.embeddings.neighbors import build_index, outlier_distance
    from similitude.embeddings.places import embed_patches
    from similitude.embeddings.selection import diverse, typical
    from similitude.embeddings.table import read_embeddings, write_embeddings
    from similitude.embeddings.verbs import choose, duplicates, outliers, search

# Imported on first use: scikit-learn takes a second.
_PLACES = {
    "encoder": ("ColumnEncoder", "SimilitudeEncoder"),
    "extraction": ("embed",),
    "groups": ("duplicate_groups",),
    "neighbors": ("build_index", "outlier_distance"),
    "places": ("embed_patches",),
    "selection": ("diverse", "typical"),
    "table": ("read_embeddings", "write_embeddings"),
    "verbs": ("choose", "duplicates", "outliers", "search"),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "ColumnEncoder",
    "SimilitudeEncoder",
    "build_index",
    "choose",
    "diverse",
    "duplicate_groups",
    "duplicates",
    "embed",
    "embed_patches",
    "outlier_distance",
    "outliers",
    "read_embeddings",
    "search",
    "typical",
    "write_embeddings",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'similitude.embeddings' has no attribute {name!r}")
    return getattr(import_module(f"similitude.embeddings.{_MODULES[name]}"), name)
