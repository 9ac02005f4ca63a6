"""Where the files in a column of Parquet files lie: made once of their footers.

index.json    see :mod:`similitude.data.index`
groups        int64 [K, 2]: rows of each row group, and bytes in memory of its part of the column
footers       of all Parquet files, as they stand there
labels        int64 [N]: number of the class, -1 where it is unknown; if any column has classes

Row groups stand in the order of the files, rows in that of the row groups.

Letters: S Parquet files, K row groups, N rows.
"""

import io
import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from similitude.data.files import Wanted, kind_declared, text_column
from similitude.data.index import Shards, kept_index
from similitude.errors import UserError

_FORMAT = 2  # larger when the same files would give another index
_TAIL = 1 << 16  # bytes in which most footers lie whole
_MARK = 8  # bytes of a footer's length, and of the letters after it
_FOOTERS = 16  # that are kept in memory as they are parsed
_COLUMNS = ("groups", "footers", "labels")


class Columns(NamedTuple):
    """What is read of Parquet files.

    Attributes:
        files: The column with the files of samples, as its leaf is called.
        label: The one of their classes, or None.
        class_names: Of all classes, or None.
        text: The column of what is written beside each sample, or None.
    """

    files: str
    label: str | None
    class_names: list[str] | None
    text: str | None


@dataclass(frozen=True)
class RowGroupIndex:
    """The index of some Parquet files.

    Attributes:
        folder: Of its files.
        columns: That are read.
        groups: As the file.
        group_ends: How many row groups there are up to the end of each Parquet file.
        footer_ends: Likewise bytes of footers.
    """

    folder: Path
    columns: Columns
    groups: Int[np.ndarray, "K 2"]
    group_ends: Int[np.ndarray, " S"]
    footer_ends: Int[np.ndarray, " S"]

    def metadata(self, number: int, shown: str) -> Any:
        """What the footer of a Parquet file says: pyarrow's ``FileMetaData``, parsed once."""
        start = int(self.footer_ends[number - 1]) if number else 0
        return _parsed_of(self.folder / "footers", start, int(self.footer_ends[number]), shown)


def indexed(shards: Shards, name: str, wanted: Wanted) -> RowGroupIndex:
    """The index of some Parquet files, made now or found in the cache.

    Raises:
        UserError: a file that is none, or is cut off; no column of files, or other columns in one
            of them; labels beside those of the classes; no pyarrow; no room on the disk.
    """
    pyarrow(name)
    key = f"Parquet {_FORMAT} {wanted.noun} {shards.fingerprint()}"
    folder, facts = kept_index(key, _COLUMNS, lambda place: _write(place, shards, name, wanted))
    return RowGroupIndex(
        folder,
        Columns(*facts["columns"]),
        np.fromfile(folder / "groups", np.int64).reshape(-1, 2),
        np.cumsum(facts["groups"]),
        np.cumsum(facts["footers"]),
    )


def pyarrow(name: str) -> tuple[Any, Any]:
    """The package that reads Parquet, and its module for that.

    Raises:
        UserError: it is not there.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{name} needs pyarrow: pip install 'similitude[parquet]'") from error
    return pyarrow, parquet


class _Scan(NamedTuple):
    groups: Int[np.ndarray, "k 2"]
    footer: bytes
    labels: Int[np.ndarray, " n"]


def _write(folder: Path, shards: Shards, name: str, wanted: Wanted) -> dict[str, Any]:
    """Read all footers and classes, and write the files; their facts."""
    columns = _columns(_first_with_rows(shards), name, wanted)
    groups, footers, rows = [], [], 0

    def scan(number: int, left_off: threading.Event) -> _Scan:
        return _scan(shards, number, columns, left_off)

    with ExitStack() as stack:
        files = {c: stack.enter_context((folder / c).open("wb")) for c in _COLUMNS}
        for found in shards.each(scan, f"footers of {name}"):
            groups.append(len(found.groups))
            footers.append(len(found.footer))
            files["groups"].write(found.groups.tobytes())
            files["footers"].write(found.footer)
            files["labels"].write(found.labels.tobytes())
            rows += int(found.groups[:, 0].sum())
    if rows == 0:
        raise UserError(f"{name} has no {wanted.noun}s: there are no rows in its Parquet files")
    return {"columns": list(columns), "groups": groups, "footers": footers}


def _first_with_rows(shards: Shards) -> Any:
    """What the footer of the first file that has rows says; of none, that of the first file."""
    first = None
    for number in range(len(shards.paths)):
        metadata = parsed(_footer(shards, number), shards.shown(number))
        if metadata.num_rows:
            return metadata
        first = first or metadata
    return first


def _scan(shards: Shards, number: int, columns: Columns, left_off: threading.Event) -> _Scan:
    shown = shards.shown(number)
    footer = _footer(shards, number)
    metadata = parsed(footer, shown)
    leaves = leaves_of(metadata)
    if not metadata.num_rows:  # whatever its columns, of which none may have a type
        return _Scan(np.empty((0, 2), np.int64), footer, np.empty(0, np.int64))
    if columns.files not in leaves:
        raise UserError(f"{shown} has no column {columns.files}, which others have")
    groups = np.zeros((metadata.num_row_groups, 2), np.int64)
    labels = [np.empty(0, np.int64)]
    for group in range(len(groups)):
        if left_off.is_set():  # nobody waits for it any more
            break
        its = metadata.row_group(group)
        chunk = its.column(leaves.index(columns.files))
        groups[group] = its.num_rows, chunk.total_uncompressed_size
        if columns.label is not None:
            found = np.full(its.num_rows, -1)
            if columns.label in leaves:
                found = _classes(shards, number, metadata, group, columns.label)
            labels.append(found)
    if columns.class_names is not None:
        known = np.concatenate(labels)
        if len(known) and not -1 <= known.min() <= known.max() < len(columns.class_names):
            raise UserError(
                f"the column {columns.label} of {shown} has labels beside those of its "
                f"{len(columns.class_names)} classes"
            )
    check_same(shards, number)
    return _Scan(groups, footer, np.concatenate(labels).astype(np.int64))


def _classes(
    shards: Shards, number: int, metadata: Any, group: int, label: str
) -> Int[np.ndarray, " n"]:
    """The numbers of the classes of a row group's rows, -1 where there is none."""
    shown = shards.shown(number)
    pa, _ = pyarrow(shown)
    physical = metadata.schema.column(leaves_of(metadata).index(label)).physical_type
    try:
        if "BYTE_ARRAY" in physical:  # texts may be long, and are not read
            raise pa.ArrowInvalid("it holds texts or bytes")
        column = read_column(shards, number, metadata, group, label, checked=False)
        return column.cast("int64").fill_null(-1).to_numpy()
    except pa.ArrowException as error:
        raise UserError(
            f"the column {label} of {shown} is declared one of classes, but has labels that are no "
            f"whole numbers ({error}): write numbers of classes, or do not declare it"
        ) from error


def _footer(shards: Shards, number: int) -> bytes:
    """The end of a file, which says what lies where in it."""
    path, size = shards.paths[number], shards.sizes[number]
    tail = shards.store.read(path, max(0, size - _TAIL), size) if size else b""
    length = _MARK + int.from_bytes(tail[-_MARK:-4], "little")
    if tail[-4:] != b"PAR1" or length > size:
        raise UserError(f"cannot read {shards.shown(number)}: it is no Parquet file, or cut off")
    return tail[-length:] if length <= len(tail) else shards.store.read(path, size - length, size)


def parsed(footer: bytes, shown: str) -> Any:
    """What a footer says: pyarrow's ``FileMetaData``.

    Raises:
        UserError: it is damaged.
    """
    pa, parquet = pyarrow(shown)
    try:
        return parquet.read_metadata(pa.BufferReader(footer))
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {shown}: {error}") from error


# One of many row groups takes longer to parse than a row group to read.
@lru_cache(_FOOTERS)
def _parsed_of(path: Path, start: int, stop: int, shown: str) -> Any:
    with path.open("rb") as file:
        file.seek(start)
        return parsed(file.read(stop - start), shown)


def _columns(metadata: Any, name: str, wanted: Wanted) -> Columns:
    """The columns that Hugging Face's library declares, else the first that can hold files.

    One that is declared something else, as a sound, holds none; a plain value may be anything.
    """
    schema = metadata.schema.to_arrow_schema()
    declared = _declared(schema)
    kinds = _kinds(declared)
    pa, _ = pyarrow(name)
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(pa, field)) is not None}
    named = [c for c, kind in kinds.items() if kind == wanted.feature and c in leaves]
    plain = [column for column in leaves if kinds.get(column) in (None, "Value")]
    found = next(iter(named or plain), None)
    if found is None:
        raise UserError(
            f"{name} has no {wanted.noun}s, only {', '.join(schema.names)} in "
            f"{metadata.num_rows} rows"
        )
    text = text_column(field.name for field in schema if is_text(pa, field.type))
    for label, kind in kinds.items():
        names = declared[label].get("names")
        if kind == "ClassLabel" and isinstance(names, list) and label in schema.names:
            return Columns(leaves[found], label, [str(one) for one in names], text)
    return Columns(leaves[found], None, None, text)


def _declared(schema: Any) -> dict[str, dict[str, Any]]:
    """What Hugging Face's library wrote there on each column."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return {}


def _kinds(declared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {column: feature.get("_type") for column, feature in declared.items()}


def first_declared(shards: Shards) -> str | None:
    """What the first Parquet file says that its first column of samples is, if it says so.

    Raises:
        UserError: it is none, or there is no pyarrow.
    """
    metadata = parsed(_footer(shards, 0), shards.shown(0))
    return kind_declared(_kinds(_declared(metadata.schema.to_arrow_schema())).values())


def is_text(pa: Any, kind: Any) -> bool:
    """Whether a type of pyarrow's is of texts."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        getattr(pa.types, f"is_{name}", lambda _: False)(kind)
        for name in ("string", "large_string", "string_view")
    )


def _leaf(pa: Any, field: Any) -> str | None:
    """Where a column has the bytes of files; None where it cannot hold any."""
    binary = (pa.binary(), pa.large_binary())
    if field.type in binary:
        return field.name
    if pa.types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        if index >= 0 and field.type.field(index).type in binary:
            return f"{field.name}.bytes"
    return None


def holds_files(path: Path) -> bool:
    """Whether a Parquet file on the disk has a column of files, not of their names."""
    try:
        pa, parquet = pyarrow(str(path))
        return any(_leaf(pa, field) is not None for field in parquet.read_schema(path))
    except Exception:  # of many kinds: who reads the file next says what is wrong with it
        return False


def read_column(
    shards: Shards, number: int, metadata: Any, group: int, leaf: str, *, checked: bool
) -> Any:
    """A row group's part of a column, got in one range: pyarrow's ``ChunkedArray``.

    Of texts and bytes it may be a dictionary, as in the file.

    Args:
        shards: Of which the Parquet file is one.
        number: Which one.
        metadata: What its footer says.
        group: Number of the row group in it.
        leaf: Of the column.
        checked: Whether to look if the file is still the one whose footer that is.

    Raises:
        UserError: it is damaged, is another one now, or cannot be had.
    """
    its = metadata.row_group(group)
    chunk = its.column(leaves_of(metadata).index(leaf))
    start, length = chunk.data_page_offset, chunk.total_compressed_size
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    content = shards.store.read(shards.paths[number], start, start + length)
    pa, parquet = pyarrow(shards.shown(number))
    try:
        if len(content) < length:
            raise EOFError("it is cut off")
        window = _Window(content, start, shards.sizes[number], pa.py_buffer)
        # Equal values of which the file has one are to be one in memory too. It takes twice the
        # time, so only where the file says so, and only as much as pyarrow's dictionaries hold.
        is_repeated = any("DICTIONARY" in encoding for encoding in chunk.encodings)
        fits = chunk.physical_type == "BYTE_ARRAY" and chunk.total_uncompressed_size < 1 << 31
        kept = [leaf] if is_repeated and fits else None
        file = parquet.ParquetFile(window, metadata=metadata, read_dictionary=kept)
        column = file.read_row_group(group, columns=[leaf], use_threads=False).flatten().column(0)
        if len(column) != its.num_rows:
            raise EOFError("rows are missing")
    except (pa.ArrowException, OSError, EOFError) as error:
        shown = shards.shown(number)
        raise UserError(f"cannot read {shown}: row group {group}: {error}") from error
    finally:
        if checked:  # afterwards, so that it shows whenever it was
            check_same(shards, number)
    return column


def check_same(shards: Shards, number: int) -> None:
    """Look whether a Parquet file is still the one that was found.

    Raises:
        UserError: it is another one.
    """
    if shards.has_changed(number):
        raise UserError(
            f"{shards.shown(number)} has changed since its footer was read: go on with the files "
            "as they were, or start a new run"
        )


def leaves_of(metadata: Any) -> list[str]:
    """The columns of a file, each as its leaf is called."""
    return [metadata.schema.column(i).path for i in range(len(metadata.schema))]


class _Window:
    """Some bytes of a file at their place, and nothing elsewhere, as pyarrow reads a file."""

    def __init__(self, content: bytes, start: int, size: int, wrap: Callable[[Any], Any]) -> None:
        self._content, self._start, self._size, self._at = memoryview(content), start, size, 0
        self._wrap = wrap  # memory as pyarrow's
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, length: int) -> bytes:
        return bytes(self._next(length))

    def read_buffer(self, length: int) -> Any:
        """Without a copy."""
        return self._wrap(self._next(length))

    def _next(self, length: int) -> memoryview:
        first = self._at - self._start
        part = self._content[first : first + length] if first >= 0 else self._content[:0]
        self._at += len(part)
        return part
