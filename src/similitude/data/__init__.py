"""Images: from a folder, an array or a name to canvases in memory, and from there to batches."""

from similitude.data.arrays import ArraySource
from similitude.data.base import ImageSource
from similitude.data.cache import cache_folder
from similitude.data.canvases import default_size, load_images, load_some, pack_images
from similitude.data.decoder import native_size
from similitude.data.decoding import ValueRange
from similitude.data.folders import FolderSource
from similitude.data.images import ImageSet
from similitude.data.labels import read_labels
from similitude.data.loader import CanvasBatch, CanvasLoader
from similitude.data.sources import Range, list_splits, open_parts, open_source, open_stream
from similitude.data.streams import ImageStream
from similitude.data.tiles import TiledSource, cut_into_tiles

__all__ = [
    "ArraySource",
    "CanvasBatch",
    "CanvasLoader",
    "FolderSource",
    "ImageSet",
    "ImageSource",
    "ImageStream",
    "Range",
    "TiledSource",
    "ValueRange",
    "cache_folder",
    "cut_into_tiles",
    "default_size",
    "list_splits",
    "load_images",
    "load_some",
    "native_size",
    "open_parts",
    "open_source",
    "open_stream",
    "pack_images",
    "read_labels",
]
