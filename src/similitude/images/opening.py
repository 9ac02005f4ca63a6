"""Find the images that a user names: a folder, an array, a file of arrays or a known data set."""

import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from similitude.data import encoded, folders, hugging_face, streams
from similitude.data.openers import Found, Opener, find, is_path, open_both, open_part
from similitude.data.parts import parts_of
from similitude.data.streams import Stream
from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.images import arrays, named, packs
from similitude.images.arrays import ArraySource
from similitude.images.decoding import IMAGES, ValueRange
from similitude.images.depth import with_measured_values
from similitude.images.image_set import ImageSet
from similitude.images.lazy import LazyCanvases
from similitude.images.source import ImageSource, as_images
from similitude.images.stored import ARRAYS
from similitude.images.views.contact_sheet import told_shown

Range = ValueRange | tuple[float, float] | None | Literal["measured"]


def _of_files(opener: Opener) -> Opener:
    """Files as images."""

    def find(data: Any) -> Found:
        found = opener.find(data)
        return replace(found, open=lambda part: as_images(found.open(part)))

    return Opener(opener.claims, find)


def _of_arrays(path: Any) -> Found:
    file = as_path(path)
    parts = parts_of(arrays.part_names(file) if file.suffix.lower() == ".npz" else [])
    return Found(lambda part: arrays.open_file(file, part), parts, parts.get("train"))


def _is_file(*suffixes: str) -> Any:
    return lambda data: (
        is_path(data) and as_path(data).suffix.lower() in suffixes and as_path(data).is_file()
    )


def _is_folder_of_arrays(data: Any) -> bool:
    return folders.is_mostly(data, ARRAYS) and not folders.file_names(as_path(data), IMAGES)


def _are_two_parts(data: Any) -> bool:
    return isinstance(data, tuple) and [isinstance(part, ImageSet) for part in data] == [True, True]


def _of_two_parts(data: tuple[ImageSet, ImageSet]) -> Found:
    train, test = data
    parts = {name: name for name in ("train", "test")}
    return Found(lambda part: _of_loaded(test if part == "test" else train), parts, "train")


# The first that claims what a user names opens it: one line adds a kind of source.
OPENERS = (
    Opener(lambda data: isinstance(data, ImageSource), lambda data: Found(lambda _: data)),
    Opener(lambda data: isinstance(data, ImageSet), lambda data: Found(lambda _: _of_loaded(data))),
    Opener(_are_two_parts, _of_two_parts),
    Opener(
        lambda data: isinstance(data, np.ndarray | Tensor),
        lambda data: Found(lambda _: arrays.from_array(data)),
    ),
    Opener(
        lambda data: str(data) in named.NAMES,
        lambda data: Found(
            lambda part: named.open_named(str(data), part), {"train": "train", "test": "test"}
        ),
    ),
    _of_files(Opener(_is_folder_of_arrays, folders.opener(ARRAYS).find)),
    *map(_of_files, encoded.openers(IMAGES)),
    Opener(_is_file(".npy", ".npz"), _of_arrays),
    Opener(
        _is_file(packs.SUFFIX),
        lambda data: Found(lambda part: _whole(packs.open_pack(as_path(data)), part)),
    ),
)


def open_source(
    data: Any,
    *,
    split: str | None = None,
    values: Range = "measured",
    channels: int | None = None,
    depth: int | None = None,
) -> ImageSource:
    """Find the images that ``data`` names.

    Args:
        data: A folder of images, or of ``.npy`` files [H, W, C]; an ``.npy``, ``.npz`` or ``.pack``
            file, tar files in the WebDataset convention (one, a folder of them,
            ``shards/train-*.tar``, ``s3://bucket/train-{000..099}.tar``), a data set of Hugging
            Face's library (the object, a folder it was saved to, ``hf:NAME``), Parquet files with a
            column of images, named as tar files are, an array or tensor (see
            :class:`ArraySource`), images that are loaded already, or a pair of such, to train on
            and to test on, or one of the names
            ``fashion-mnist``, ``cifar10``, ``cifar100``, ``stl10``, ``digits``. For a folder with
            the same name write ``./digits``.
        split: "train" or "test" where ``data`` has both: a folder with ``train/`` and ``test/``
            or ``val/``, an ``.npz`` with ``x_train`` and ``x_test``, a named set. With None, for
            pretraining, the training images are used, and ``notes`` says so. A part may be called
            train, test, val, valid, validation or dev; "test" is the validation part where there
            is no test part, or where that has no labels.
        values: of deep pictures (16 bits, floats) that are black and white, measured on some of
            them if not given; None: each picture in the range of its type.
        channels: That are decoded; 3, red, green and blue, if not given.
        depth: Bits that are kept of a pixel, 8 or 16; 8 if not given.

    Raises:
        UserError: there is nothing there, or no image in it, or no such split.
    """
    return _shown(open_part(_find(data), split, "images"), values, channels, depth)


def open_parts(
    data: Any, *, values: Range = "measured", channels: int | None = None, depth: int | None = None
) -> list[ImageSource]:
    """The training and the test images of ``data``, or all where it has one part only.

    Classes have one numbering, and deep pictures of the second are shown in the range of the first.

    Raises:
        UserError: as :func:`open_source`.
    """

    def shown(source: ImageSource, first: ImageSource | None) -> ImageSource:
        return _shown(source, values if first is None else first.values or values, channels, depth)

    return open_both(_find(data), shown, "images")


def open_stream(data: Any) -> Stream | None:
    """What ``data`` yields, if its length is not known: only :func:`pack_images` takes it.

    Args:
        data: A data set of Hugging Face's library loaded with ``streaming=True``, or any iterator
            of the bytes of image files, or of pairs (bytes, class number).

    Returns:
        None for everything else.
    """
    if hugging_face.is_stream(data):
        return hugging_face.open_stream(data, "the stream", IMAGES)
    return streams.from_iterable(data, "the stream") if isinstance(data, Iterator) else None


def _shown(
    source: ImageSource, values: Range, channels: int | None, depth: int | None
) -> ImageSource:
    form = {"channels": channels, "depth": depth}
    if channels is not None and source.channels not in (3, channels):  # 3 unless somebody said so
        raise UserError(
            f"{source.name} has {source.channels} channels, not {channels}: channels="
            f"{source.channels} keeps them"
        )
    source = source.decoded_as(**{name: own for name, own in form.items() if own is not None})
    if shown := told_shown(source.channels):
        note = f"of {source.channels} channels pictures show {shown}"
        source = replace(source, notes=(*source.notes, note))
    if values == "measured":
        return with_measured_values(source)
    return source if values is None else source.with_values(ValueRange(*values))


def _find(data: Any) -> Found:
    found = find(data, OPENERS)
    if found is not None:
        return found
    if isinstance(data, Iterator):
        raise UserError(
            "an iterator cannot be read twice, as learning does: make a file of it with sim.pack"
        )
    if not isinstance(data, (str, Path)):
        raise UserError(
            f"images cannot be read from an object of type {type(data).__name__}: give a folder, a "
            "file, an array or tensor [N, H, W, 3], or a data set of Hugging Face; an iterator "
            "over the bytes of image files becomes a file with sim.pack"
        )
    if not str(data).strip():
        raise UserError("DATA is empty: give a folder, a file, or the name of a data set")
    raise _not_found(str(data), as_path(data))


def _of_loaded(data: ImageSet) -> ImageSource:
    if isinstance(data.pixels, LazyCanvases):
        known = {"names": data.names, "labels": data.labels, "class_names": data.class_names}
        return replace(data.pixels.source, **known)
    return ArraySource(
        name="images in memory",
        names=data.names,
        labels=data.labels,
        class_names=data.class_names,
        channels=data.channels,
        depth=data.depth,
        array=data.pixels.numpy(),
        layout="NCHW",
        aspect=data.aspect,
        partners=data.partners,
        blocks=data.blocks,
    )


def _whole(source: ImageSource, part: str | None) -> ImageSource:
    if part is not None:
        raise UserError(f"{source.name} has no split {part!r}: a pack is one set of images")
    return source


def _not_found(data: str, path: Path) -> UserError:
    if path.is_file():
        return UserError(
            f"{data} is a file: give the folder that holds the images, an .npy, .npz, .pack or "
            ".tar file, or unpack it first"
        )
    near = difflib.get_close_matches(data.lower().replace("_", "-"), named.NAMES, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return UserError(
        f"there is no folder or file {data}{meant} (data sets known by name: "
        f"{', '.join(named.NAMES)})"
    )
