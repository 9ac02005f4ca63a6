"""The kinds of data, each a folder of the same file names: the one module that lists them."""

KINDS = {"image": "similitude.images"}

# What ``similitude.data`` shows, and where it is.
DATA = {
    "ArraySource": "similitude.images.arrays",
    "CanvasBatch": "similitude.data.loader",
    "CanvasLoader": "similitude.data.loader",
    "FolderSource": "similitude.data.folders",
    "ImageSet": "similitude.images.image_set",
    "ImageSource": "similitude.data.source",
    "ImageStream": "similitude.data.streams",
    "Range": "similitude.images.opening",
    "TiledSource": "similitude.images.tiles",
    "ValueRange": "similitude.images.decoding",
    "cache_folder": "similitude.data.cache",
    "cut_into_tiles": "similitude.images.tiles",
    "default_size": "similitude.images.loading",
    "list_splits": "similitude.images.opening",
    "load_images": "similitude.images.loading",
    "load_some": "similitude.images.loading",
    "native_size": "similitude.data.decoder",
    "open_parts": "similitude.images.opening",
    "open_source": "similitude.images.opening",
    "open_stream": "similitude.images.opening",
    "pack_images": "similitude.images.loading",
    "read_labels": "similitude.data.labels",
}
