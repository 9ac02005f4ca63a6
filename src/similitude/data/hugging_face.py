"""Data sets of Hugging Face's ``datasets``: from Python, from a folder, or from the hub."""

import importlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from similitude.data import decoding
from similitude.data.base import ImageSource, numbered
from similitude.data.decoding import UnreadableImageError
from similitude.data.streams import ImageStream
from similitude.errors import UserError

PREFIX = "hf:"  # of the name of a data set on the hub
_SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}


@dataclass(frozen=True, kw_only=True)
class HuggingFaceSource(ImageSource):
    """Images in a column of a ``datasets.Dataset``.

    Attributes:
        dataset: Its images are not decoded.
        column: The one with the images.
    """

    dataset: Any
    column: str

    def read(self, i: int, size: int | None = None) -> UInt8[Tensor, "3 H W"]:
        """Decode image ``i``; see :meth:`ImageSource.read`."""
        image = self._image(i)
        if image["bytes"] is not None:
            return decoding.decode(image["bytes"], size)
        return decoding.read_file(image["path"], size)

    def probe_size(self, i: int) -> tuple[int, int] | None:
        """Size from the header of image ``i``; see :meth:`ImageSource.probe_size`."""
        try:
            image = self._image(i)
        except UnreadableImageError:
            return None
        data = image["bytes"]
        return decoding.probe_size(image["path"] if data is None else io.BytesIO(data))

    def fingerprint(self) -> str:
        """The library's own hash of the content and of what was done to it."""
        return f"hf-{self.dataset._fingerprint}-{len(self)}"

    def _image(self, i: int) -> Mapping[str, Any]:
        image = self.dataset[i][self.column]
        if image is None:
            raise UnreadableImageError("no image in this row")
        return image


def is_dataset(data: object) -> bool:
    """Whether an object comes from the library, which is not imported for the question."""
    return type(data).__module__.partition(".")[0] == "datasets"


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def open_saved(folder: Path, split: str | None) -> HuggingFaceSource:
    """The images of a folder that ``save_to_disk`` wrote; see :func:`open_dataset`."""
    return open_dataset(_library(str(folder)).load_from_disk(str(folder)), str(folder), split)


def open_on_hub(name: str, split: str | None) -> HuggingFaceSource:
    """The images of ``hf:NAME``, downloaded once; see :func:`open_dataset`.

    Raises:
        UserError: as :func:`open_dataset`, or the data set cannot be had.
    """
    return open_dataset(_load(name), name, split)


def splits_of(data: object) -> list[str]:
    """["train", "test"] where a data set has both, else none."""
    if isinstance(data, Path):
        data = _library(str(data)).load_from_disk(str(data)) if is_saved(data) else None
    elif isinstance(data, str):
        data = _load(data)
    if not isinstance(data, Mapping):
        return []
    return ["train", "test"] if all(_pick(data, split) for split in _SPLITS) else []


def open_dataset(data: Any, name: str, split: str | None) -> HuggingFaceSource:
    """The images of a ``Dataset``, or of one part of a ``DatasetDict``.

    The first column of images counts. A column of class labels gives the classes, if there is one.

    Args:
        data: From the library.
        name: What errors call it.
        split: "train", "test" (or validation), or None: the training part, or the only one.

    Raises:
        UserError: a stream, no such part, no column of images, or no rows.
    """
    data, name, notes = _choose(data, name, split)
    if not hasattr(data, "__len__"):
        raise UserError(
            f"{name} is a stream: make a file of it with sim.pack, or load it without "
            "streaming=True"
        )
    library = _library(name)
    column = _column(data.features, library.Image)
    if column is None or len(data) == 0:
        raise UserError(
            f"{name} has no images, only {', '.join(data.features)} in {len(data)} rows"
        )
    labels, class_names = _labels(data, _column(data.features, library.ClassLabel))
    return HuggingFaceSource(
        name=name,
        names=numbered("", len(data)),
        labels=labels,
        class_names=class_names,
        notes=notes,
        dataset=data.select_columns([column]).cast_column(column, library.Image(decode=False)),
        column=column,
    )


def is_stream(data: object) -> bool:
    """Whether an object is a data set loaded with ``streaming=True``, or parts of such a one."""
    if isinstance(data, Mapping):
        return any(is_stream(part) for part in data.values())
    return is_dataset(data) and not hasattr(data, "__len__")


def open_stream(data: Any, name: str) -> ImageStream:
    """The images of an ``IterableDataset``, as :func:`open_dataset` takes those of a ``Dataset``.

    Raises:
        UserError: no such part, or no column of images.
    """
    data, name, notes = _choose(data, name, None)
    library = _library(name)
    features = data.features or {}
    column, label = _column(features, library.Image), _column(features, library.ClassLabel)
    if column is None:
        known = ", ".join(features) or "columns of unknown kinds"
        raise UserError(f"{name} has no images, only {known}: cast the column to datasets.Image")
    columns = [column] if label is None else [column, label]
    rows = data.select_columns(columns).cast_column(column, library.Image(decode=False))
    return ImageStream(
        name=name,
        images=_files(rows, column, label),
        class_names=None if label is None else list(features[label].names),
        notes=notes,
    )


def _files(
    rows: Iterable[Mapping[str, Any]], column: str, label: str | None
) -> Iterator[tuple[bytes | None, int]]:
    for row in rows:
        image, number = row[column], None if label is None else row[label]
        data = None
        if image is not None:
            data = image["bytes"] if image["bytes"] is not None else _content(image["path"])
        yield data, -1 if number is None else number


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _choose(data: Any, name: str, split: str | None) -> tuple[Any, str, tuple[str, ...]]:
    """One part of a data set with several, its name, and what people should hear of."""
    notes: tuple[str, ...] = ()
    if isinstance(data, Mapping):
        part = _pick(data, split or "train") or (next(iter(data)) if len(data) == 1 else None)
        if part is None or (split is not None and part not in _SPLITS.get(split, (split,))):
            raise UserError(f"{name} has no split {split or 'train'!r}, only {', '.join(data)}")
        if split is None and len(data) > 1:
            notes = (f"{name} has the parts {', '.join(data)}: {part} is used",)
        data, name = data[part], f"{name} {part}"
    elif split is not None:
        raise UserError(f"{name} has no split {split!r}: it is a single set of images")
    return data, name, notes


def _column(features: Mapping[str, Any], kind: type) -> str | None:
    return next((name for name, feature in features.items() if isinstance(feature, kind)), None)


def _labels(data: Any, column: str | None) -> tuple[Int[Tensor, " N"] | None, list[str] | None]:
    if column is None:
        return None, None
    values: Iterable[int | None] = data[column]
    numbers = [-1 if value is None else value for value in values]
    names = list(data.features[column].names)
    if not all(-1 <= number < len(names) for number in numbers):
        raise UserError(f"the column {column} has labels beside those of its {len(names)} classes")
    return torch.tensor(numbers), names


def _pick(parts: Mapping[str, Any], split: str) -> str | None:
    return next((name for name in _SPLITS.get(split, (split,)) if name in parts), None)


def _load(name: str) -> Any:
    library = _library(name)
    try:
        return library.load_dataset(name.removeprefix(PREFIX))
    except (
        Exception
    ) as error:  # of its many kinds: offline, unknown, private, needs a configuration
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot load {name}: {reason}") from error


def _library(name: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(
            f"{name} needs Hugging Face's library: pip install 'similitude[huggingface]'"
        ) from error
