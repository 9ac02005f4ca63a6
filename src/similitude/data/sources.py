"""Find the images that a user names: a folder, an array, a file of arrays or a known data set."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from similitude.data import arrays, datasets, folders, hugging_face, packs, shards, streams
from similitude.data.arrays import ArraySource
from similitude.data.base import ImageSource
from similitude.data.images import ImageSet
from similitude.data.lazy import LazyCanvases
from similitude.data.streams import ImageStream
from similitude.errors import UserError
from similitude.storage import as_path


def open_source(data: Any, *, split: str | None = None) -> ImageSource:
    """Find the images that ``data`` names.

    Args:
        data: A folder of images, an ``.npy``, ``.npz`` or ``.pack`` file, tar files in the
            WebDataset convention (one, a folder of them, ``shards/train-*.tar``), a data set of
            Hugging Face's library (the object, a folder it was saved to, ``hf:NAME``), an array or
            tensor (see :class:`ArraySource`), images that are loaded already, or one of the names
            ``fashion-mnist``, ``cifar10``, ``cifar100``, ``stl10``, ``digits``. For a folder with
            the same name write ``./digits``.
        split: "train" or "test" where ``data`` has both: a folder with ``train/`` and ``test/``
            or ``val/``, an ``.npz`` with ``x_train`` and ``x_test``, a named set. With None, for
            pretraining, the training images are used, and ``notes`` says so.

    Raises:
        UserError: there is nothing there, or no image in it, or no such split.
    """
    if isinstance(data, ImageSource):
        return data
    if isinstance(data, ImageSet):
        if isinstance(data.pixels, LazyCanvases):
            return data.pixels.source
        return ArraySource(
            name="images in memory",
            names=data.names,
            labels=data.labels,
            class_names=data.class_names,
            array=data.pixels.numpy(),
            layout="NCHW",
            aspect=data.aspect,
            neighbours=data.neighbours,
        )
    if isinstance(data, Iterator):
        raise UserError(
            "an iterator cannot be read twice, as learning does: make a file of it with sim.pack"
        )
    if isinstance(data, (np.ndarray, Tensor)):
        return arrays.from_array(data)
    if hugging_face.is_dataset(data):
        return hugging_face.open_dataset(data, "the data set", split)
    if str(data) in datasets.NAMES:
        return datasets.open_named(str(data), split)
    if str(data).startswith(hugging_face.PREFIX):
        return hugging_face.open_on_hub(str(data), split)
    if not isinstance(data, (str, Path)):
        raise UserError(
            f"images cannot be read from an object of type {type(data).__name__}: give a folder, a "
            "file, an array or tensor [N, H, W, 3], or a data set of Hugging Face; an iterator "
            "over the bytes of image files becomes a file with sim.pack"
        )
    path = as_path(data)
    if files := _shards(path):
        if split is not None:
            raise UserError(f"{path} has no split {split!r}: give the shards of each part by name")
        return shards.open_shards(files, str(data))
    if hugging_face.is_saved(path):
        return hugging_face.open_saved(path, split)
    if path.is_dir():
        return folders.open_folder(path, split)
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return arrays.open_file(path, split)
    if path.suffix.lower() == packs.SUFFIX and path.is_file():
        if split is not None:
            raise UserError(f"{path} has no split {split!r}: a pack is one set of images")
        return packs.open_pack(path)
    raise _not_found(str(data), path, datasets.NAMES)


def open_stream(data: Any) -> ImageStream | None:
    """What ``data`` yields, if its length is not known: only :func:`pack_images` takes it.

    Args:
        data: A data set of Hugging Face's library loaded with ``streaming=True``, or any iterator
            of the bytes of image files, or of pairs (bytes, class number).

    Returns:
        None for everything else.
    """
    if hugging_face.is_stream(data):
        return hugging_face.open_stream(data, "the stream")
    return streams.from_iterable(data, "the stream") if isinstance(data, Iterator) else None


def list_splits(data: Any) -> list[str]:
    """The splits that :func:`open_source` can take from ``data``: ["train", "test"] or []."""
    if hugging_face.is_dataset(data):
        return hugging_face.splits_of(data)
    if not isinstance(data, (str, Path)):
        return []
    if str(data).startswith(hugging_face.PREFIX):
        return hugging_face.splits_of(str(data))
    path = as_path(data)
    if hugging_face.is_saved(path):
        return hugging_face.splits_of(path)
    if str(data) in datasets.NAMES or (path.is_dir() and folders.split_folders(path)):
        return ["train", "test"]
    if path.suffix.lower() == ".npz" and path.is_file() and arrays.has_splits(path):
        return ["train", "test"]
    return []


def _shards(path: Path) -> list[Path]:
    """The tar files that a path means: itself, those of a pattern, all of a folder of shards."""
    if path.suffix.lower() != shards.SUFFIX:
        return shards.shards_of(path) if path.is_dir() else []
    if path.is_file():
        return [path]
    return sorted(p for p in path.parent.glob(path.name) if p.is_file())


def _not_found(data: str, path: Path, known: Sequence[str]) -> UserError:
    if path.is_file():
        return UserError(
            f"{data} is a file: give the folder that holds the images, an .npy, .npz, .pack or "
            ".tar file, or unpack it first"
        )
    near = difflib.get_close_matches(data.lower().replace("_", "-"), known, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return UserError(
        f"there is no folder or file {data}{meant} (data sets known by name: {', '.join(known)})"
    )
