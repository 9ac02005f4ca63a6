"""Find the images that a user names: a folder, an array, a file of arrays or a known data set."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from similitude.data import folders, hugging_face, packs, shards, streams
from similitude.data.classes import has_labels, with_same_classes
from similitude.data.lazy import LazyCanvases
from similitude.data.parts import parts_of
from similitude.data.source import ImageSource
from similitude.data.streams import ImageStream
from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.images import arrays
from similitude.images import named as datasets
from similitude.images.arrays import ArraySource
from similitude.images.decoding import ValueRange
from similitude.images.depth import with_measured_values
from similitude.images.image_set import ImageSet

Range = ValueRange | tuple[float, float] | None | Literal["measured"]


def open_source(data: Any, *, split: str | None = None, values: Range = "measured") -> ImageSource:
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
            pretraining, the training images are used, and ``notes`` says so. A part may be called
            train, test, val, valid, validation or dev; "test" is the validation part where there
            is no test part, or where that has no labels.
        values: of deep pictures (16 bits, floats) that are black and white, measured on some of
            them if not given; None: each picture in the range of its type.

    Raises:
        UserError: there is nothing there, or no image in it, or no such split.
    """
    return _open(_find(data), split, values)


def _open(found: "_Found", split: str | None, values: Range) -> ImageSource:
    if split is None:
        name = found.default
    else:
        stands_for = "val" if split == "test" and "test" not in found.parts else split
        name = found.parts.get(stands_for, split)
    source = found.open(name)
    notes = source.notes
    if split is None and found.default is not None:
        others = ", ".join(part for part in found.parts.values() if part != name)
        notes += (f"{source.name}: the training images are used, those of {others} are not",)
    elif split == "test" and {"test", "val"} <= found.parts.keys():
        source, notes = _labelled_test(found, source)
    source = replace(source, notes=notes)
    if values == "measured":
        return with_measured_values(source)
    return source if values is None else source.with_values(ValueRange(*values))


@dataclass(frozen=True)
class _Found:
    """What a user's data turned out to be."""

    open: Callable[[str | None], ImageSource]  # a part by its own name, or None
    parts: dict[str, str] = field(
        default_factory=dict
    )  # "train", "test", "val" -> the name it has there
    default: str | None = None  # of the part that is opened where none is asked for


def _find(data: Any) -> _Found:
    if isinstance(data, ImageSource):
        return _Found(lambda part: data)
    if isinstance(data, ImageSet):
        return _Found(lambda part: _of_loaded(data))
    if isinstance(data, Iterator):
        raise UserError(
            "an iterator cannot be read twice, as learning does: make a file of it with sim.pack"
        )
    if isinstance(data, (np.ndarray, Tensor)):
        return _Found(lambda part: arrays.from_array(data))
    if hugging_face.is_dataset(data):
        return _of_hugging_face(data, "the data set")
    if str(data) in datasets.NAMES:
        parts = {"train": "train", "test": "test"}
        return _Found(lambda part: datasets.open_named(str(data), part), parts)
    if str(data).startswith(hugging_face.PREFIX):
        return _of_hugging_face(hugging_face.load_from_hub(str(data)), str(data))
    if not isinstance(data, (str, Path)):
        raise UserError(
            f"images cannot be read from an object of type {type(data).__name__}: give a folder, a "
            "file, an array or tensor [N, H, W, 3], or a data set of Hugging Face; an iterator "
            "over the bytes of image files becomes a file with sim.pack"
        )
    if not str(data).strip():
        raise UserError("DATA is empty: give a folder, a file, or the name of a data set")
    return _on_disk(str(data), as_path(data))


def _on_disk(name: str, path: Path) -> _Found:
    if files := shards.shards_of(path):
        listed = shards.Listing.of(files, name)
        parts = parts_of(listed.part_names)
        return _Found(lambda part: listed.open(part), parts, parts.get("train"))
    if hugging_face.is_saved(path):
        return _of_hugging_face(hugging_face.load_saved(path), str(path))
    if path.is_dir():
        parts = parts_of(folders.part_names(path))
        return _Found(lambda part: folders.open_folder(path, part), parts, parts.get("train"))
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        names = arrays.part_names(path) if path.suffix.lower() == ".npz" else []
        parts = parts_of(names)
        return _Found(lambda part: arrays.open_file(path, part), parts, parts.get("train"))
    if path.suffix.lower() == packs.SUFFIX and path.is_file():
        return _Found(lambda part: _whole(packs.open_pack(path), part))
    raise _not_found(name, path, datasets.NAMES)


def _of_hugging_face(data: Any, name: str) -> _Found:
    parts = parts_of(data) if isinstance(data, Mapping) else {}
    return _Found(
        lambda part: hugging_face.open_dataset(data, name, part), parts, parts.get("train")
    )


def _of_loaded(data: ImageSet) -> ImageSource:
    if isinstance(data.pixels, LazyCanvases):
        known = {"names": data.names, "labels": data.labels, "class_names": data.class_names}
        return replace(data.pixels.source, **known)
    return ArraySource(
        name="images in memory",
        names=data.names,
        labels=data.labels,
        class_names=data.class_names,
        array=data.pixels.numpy(),
        layout="NCHW",
        aspect=data.aspect,
        partners=data.partners,
    )


def _whole(source: ImageSource, part: str | None) -> ImageSource:
    if part is not None:
        raise UserError(f"{source.name} has no split {part!r}: a pack is one set of images")
    return source


def _labelled_test(found: _Found, source: ImageSource) -> tuple[ImageSource, tuple[str, ...]]:
    """The test part, or the validation part where that alone has labels; with a note."""
    test, val = found.parts["test"], found.parts["val"]
    if not has_labels(source) and has_labels(other := found.open(val)):
        note = f"{source.name} has no labels: {val} is used to test in its place"
        return other, (*other.notes, note)
    return source, (*source.notes, f"{source.name}: {test} is used to test, {val} is not")


def open_parts(data: Any, *, values: Range = "measured") -> list[ImageSource]:
    """The training and the test images of ``data``, or all where it has one part only.

    Classes have one numbering, and deep pictures of the second are shown in the range of the first.

    Raises:
        UserError: as :func:`open_source`.
    """
    found = _find(data)
    first, *others = ["train", "test"] if found.parts else [None]
    source = _open(found, first, values)
    more = [_open(found, split, source.values or values) for split in others]
    return with_same_classes([source, *more])


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
    parts = _find(data).parts
    return ["train", "test"] if parts else []


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
