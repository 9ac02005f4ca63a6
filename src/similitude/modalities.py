"""The kinds of data, each a folder of the same file names: the one module that lists them."""

from importlib import import_module
from typing import Any

from similitude.errors import did_you_mean

# kind of a view -> where its config is; recipes from before there were kinds are of images
VIEWS = {
    "image": "similitude.images.views.config:ImageViewConfig",
    "patches": "similitude.images.views.patches:PatchViewConfig",
}
DEFAULT_KIND = "image"

# What ``similitude.data`` shows, and where it is.
DATA = {
    "ArraySource": "similitude.images.arrays",
    "FolderSource": "similitude.data.folders",
    "ImageSet": "similitude.images.image_set",
    "ImageSource": "similitude.images.source",
    "Loader": "similitude.data.loader",
    "Range": "similitude.images.opening",
    "RowBatch": "similitude.data.loader",
    "TiledSource": "similitude.images.tiles",
    "ValueRange": "similitude.images.decoding",
    "cache_folder": "similitude.data.cache",
    "cut_into_tiles": "similitude.images.tiles",
    "default_size": "similitude.images.loading",
    "list_splits": "similitude.images.opening",
    "load_images": "similitude.images.loading",
    "load_some": "similitude.images.loading",
    "native_size": "similitude.images.decoder",
    "open_parts": "similitude.images.opening",
    "open_source": "similitude.images.opening",
    "open_stream": "similitude.images.opening",
    "pack_images": "similitude.images.loading",
    "read_labels": "similitude.data.labels",
}


def view_config(kind: str | None) -> Any:
    """The class of configs of a kind of views.

    Raises:
        ValueError: there is no such kind.
    """
    if (kind or DEFAULT_KIND) not in VIEWS:
        raise ValueError(f"unknown kind of view {kind!r}: {did_you_mean(str(kind), VIEWS)}")
    module, _, name = VIEWS[kind or DEFAULT_KIND].partition(":")
    return getattr(import_module(module), name)
