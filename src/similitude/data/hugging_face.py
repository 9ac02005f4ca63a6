"""Data sets of Hugging Face's ``datasets``: from Python, a folder or the hub."""

import importlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.files import (
    ByteFile,
    UnreadableError,
    Wanted,
    as_caption,
    kind_declared,
    open_regular,
    text_column,
)
from similitude.data.names import Numbered
from similitude.data.openers import Found, Opener, is_path
from similitude.data.parts import parts_of
from similitude.data.source import FileSource
from similitude.data.stores import is_url
from similitude.data.streams import Stream
from similitude.errors import UserError
from similitude.files.writing import as_path

PREFIX = "hf:"  # of the name of a data set on the hub


@dataclass(frozen=True, kw_only=True)
class HuggingFaceSource(FileSource):
    """Files in a column of a ``datasets.Dataset``.

    Attributes:
        dataset: Its files are not decoded.
        column: The one with the files.
        beside: The column of texts, as a data set; None without any.
    """

    dataset: Any
    column: str
    beside: Any = None

    @property
    def texts_of(self) -> str | None:
        """The column of texts."""
        return None if self.beside is None else f"column {self.beside.column_names[0]}"

    def texts(self) -> list[str]:
        """The column of texts."""
        if self.beside is None:
            return super().texts()
        (name,) = self.beside.column_names
        return [as_caption(text) for text in self.beside[name]]

    def file(self, i: int) -> ByteFile:
        file = self.dataset[i][self.column]
        if file is None:
            raise UnreadableError("nothing in this row")
        content = file["bytes"]
        return open_regular(file["path"]) if content is None else io.BytesIO(content)

    def fingerprint(self) -> str:
        """The library's own hash of the content and of what was done to it."""
        return f"hf-{self.dataset._fingerprint}-{len(self)}"


def openers(wanted: Wanted) -> tuple[Opener, ...]:
    """Data sets of the library: an object, a name on the hub, a folder that one was saved to."""

    def found(data: Any, name: str) -> Found:
        parts = parts_of(data) if isinstance(data, Mapping) else {}
        return Found(lambda part: open_dataset(data, name, part, wanted), parts, parts.get("train"))

    return (
        Opener(is_dataset, lambda data: found(data, "the data set")),
        Opener(
            lambda data: str(data).startswith(PREFIX) and not is_url(data),
            lambda data: found(load_from_hub(str(data)), str(data)),
        ),
        Opener(
            lambda data: is_path(data) and is_saved(as_path(data)),
            lambda data: found(load_saved(as_path(data)), str(as_path(data))),
        ),
    )


def is_dataset(data: object) -> bool:
    """Whether an object comes from the library, which is not imported for the question."""
    return type(data).__module__.partition(".")[0] == "datasets"


def declares(data: Any, wanted: Wanted) -> bool:
    """Whether the first column of samples of a data set that somebody named is of what is wanted.

    Raises:
        UserError: it cannot be had.
    """
    if not is_dataset(data):
        if not is_path(data) or is_url(data):
            return False
        if str(data).startswith(PREFIX):
            data = load_from_hub(str(data))
        elif is_saved(as_path(data)):
            data = load_saved(as_path(data))
        else:
            return False
    part = next(iter(data.values()), None) if isinstance(data, Mapping) else data
    features = getattr(part, "features", None) or {}
    return kind_declared(type(one).__name__ for one in features.values()) == wanted.feature


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def load_saved(folder: Path) -> Any:
    """What ``save_to_disk`` wrote to a folder, for :func:`open_dataset`."""
    return _library(str(folder)).load_from_disk(str(folder))


def open_dataset(data: Any, name: str, part: str | None, wanted: Wanted) -> HuggingFaceSource:
    """The files of a ``Dataset``, or of one part of a ``DatasetDict``.

    The first column of what is wanted counts. A column of class labels gives the classes, if there
    is one.

    Args:
        data: From the library.
        name: What errors call it.
        part: Name of one part; None for the only one, or the training part.
        wanted: What is looked for.

    Raises:
        UserError: a stream, no such part, no such column, or no rows.
    """
    data, name, notes = _choose(data, name, part)
    if not hasattr(data, "__len__"):
        raise UserError(
            f"{name} is a stream: make a file of it with sim.pack, or load it without "
            "streaming=True"
        )
    library = _library(name)
    kind = _feature(library, wanted)
    column = _column(data.features, kind)
    if column is None or len(data) == 0:
        raise UserError(
            f"{name} has no {wanted.noun}s, only {', '.join(data.features)} in {len(data)} rows"
        )
    labels, class_names = _labels(data, _column(data.features, library.ClassLabel))
    text = text_column(
        name
        for name, feature in data.features.items()
        if isinstance(feature, library.Value) and feature.dtype in ("string", "large_string")
    )
    return HuggingFaceSource(
        name=name,
        names=Numbered(range(len(data))),
        labels=labels,
        class_names=class_names,
        notes=notes,
        dataset=data.select_columns([column]).cast_column(column, kind(decode=False)),
        column=column,
        beside=None if text is None else data.select_columns([text]),
    )


def is_stream(data: object) -> bool:
    """Whether an object is a data set loaded with ``streaming=True``, or parts of such a one."""
    if isinstance(data, Mapping):
        return any(is_stream(part) for part in data.values())
    return is_dataset(data) and not hasattr(data, "__len__")


def open_stream(data: Any, name: str, wanted: Wanted) -> Stream:
    """The files of an ``IterableDataset``, as :func:`open_dataset` takes those of a ``Dataset``.

    Raises:
        UserError: no such part, or no such column.
    """
    data, name, notes = _choose(data, name, None)
    library = _library(name)
    features = data.features or {}
    kind = _feature(library, wanted)
    column, label = _column(features, kind), _column(features, library.ClassLabel)
    if column is None:
        known = ", ".join(features) or "columns of unknown kinds"
        raise UserError(
            f"{name} has no {wanted.noun}s, only {known}: cast the column to "
            f"datasets.{kind.__name__}"
        )
    columns = [column] if label is None else [column, label]
    rows = data.select_columns(columns).cast_column(column, kind(decode=False))
    return Stream(
        name=name,
        files=_files(rows, column, label),
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
        with open_regular(path) as file:
            return file.read()
    except UnreadableError:
        return None


def _choose(data: Any, name: str, part: str | None) -> tuple[Any, str, tuple[str, ...]]:
    """One part of a data set with several, its name, and what people should hear of."""
    notes: tuple[str, ...] = ()
    if isinstance(data, Mapping):
        chosen = part or (next(iter(data)) if len(data) == 1 else "train")
        if chosen not in data:
            raise UserError(f"{name} has no split {chosen!r}, only {', '.join(data)}")
        if part is None and len(data) > 1:
            notes = (f"{name} has the parts {', '.join(data)}: {chosen} is used",)
        data, name = data[chosen], f"{name} {chosen}"
    elif part is not None:
        raise UserError(f"{name} has no split {part!r}: it is a single set")
    return data, name, notes


def _feature(library: Any, wanted: Wanted) -> type:
    """The library's own class of such a column."""
    if (kind := getattr(library, wanted.feature, None)) is None:
        raise UserError(
            f"this version of datasets knows no {wanted.noun}s: pip install -U datasets"
        )
    return kind


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


@lru_cache(1)  # whoever asks what it holds opens it next
def load_from_hub(name: str) -> Any:
    """What ``hf:NAME`` is, downloaded once, for :func:`open_dataset`.

    Raises:
        UserError: the data set cannot be had.
    """
    library = _library(name)
    try:
        return library.load_dataset(name.removeprefix(PREFIX))
    except Exception as error:  # of many kinds: offline, unknown, private, not configured
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot load {name}: {reason}") from error


def _library(name: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError(
            f"{name} needs Hugging Face's library: pip install 'similitude[huggingface]'"
        ) from error
