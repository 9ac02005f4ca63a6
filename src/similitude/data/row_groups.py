"""Files in a column of Parquet files, as Hugging Face keeps images and sounds.

A row is called ``FILE.parquet/ROW``. Its part is the first word of the file's name, or the folder
of the file. Its class is what a column of class labels says.

A row costs its row group, which is read as a whole, in one range, and held for a while: row groups
are the blocks of the samples, see :class:`similitude.randomness.BlockOrder`.

Letters: S Parquet files, K row groups, N rows.
"""

import io
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.cache import free_memory_bytes
from similitude.data.files import MAX_BYTES, ByteFile, UnreadableError, Wanted, as_caption
from similitude.data.index import Shards
from similitude.data.names import RowNames
from similitude.data.openers import Found
from similitude.data.parts import PARTS, part_of_file, parts_of
from similitude.data.row_group_index import (
    RowGroupIndex,
    indexed,
    is_text,
    leaves_of,
    pyarrow,
    read_column,
)
from similitude.data.source import FileSource
from similitude.distributed.threads import lone_threads
from similitude.errors import UserError
from similitude.randomness import WINDOW_BYTES, Blocks

T = TypeVar("T")

SUFFIX = ".parquet"
_AT_ONCE = 8  # row groups that are read at once
_LEAST = 3  # row groups that are held, whatever their bytes


class Held(Generic[T]):
    """Blocks of which some are in memory, each read once for all threads that ask for it.

    Held are those that are read ahead, and of others the last ones. Where one is asked for after
    the one before it, those that follow are read too.
    """

    def __init__(self, read: Callable[[int], T], sizes: Int[np.ndarray, " K"]) -> None:
        """Read nothing yet.

        Args:
            read: Gives a block by its number.
            sizes: Bytes of each.
        """
        self._read, self._sizes = read, sizes
        self._held: dict[int, Future[T]] = {}
        self._ahead: frozenset[int] = frozenset()
        # The others that are held, those last asked for at the end, and their bytes in all: all
        # threads wait for the lock, so nothing under it may take longer the more are held.
        self._others: OrderedDict[int, None] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, "similitude-row-groups")

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process nothing is in memory yet."""
        return Held, (self._read, self._sizes)

    def __getitem__(self, number: int) -> T:
        """A block, read now unless it is there."""
        while True:
            with self._lock:
                future = self._asked(number)
                if number not in self._ahead:
                    if number - 1 in self._held:
                        for following in self._following(number):
                            # one that failed is tried again in its turn, not for each sample before
                            if following not in self._held:
                                self._asked(following)
                            elif following in self._others:
                                self._others.move_to_end(following)
                    self._let_go()
            try:
                return future.result()
            except CancelledError:  # let go of just now
                continue

    def read_ahead(self, numbers: Iterable[int]) -> None:
        """Begin to read these blocks, in this order, and let go of all others."""
        with self._lock:
            wanted = dict.fromkeys(numbers)
            self._ahead = frozenset(wanted)
            self._others.clear()
            self._bytes = 0
            for number in [number for number in self._held if number not in wanted]:
                self._held.pop(number).cancel()
            for number in wanted:
                self._asked(number)

    def _asked(self, number: int) -> Future[T]:
        future = self._held.get(number)
        if future is None or _has_failed(future):
            future = self._held[number] = self._threads.submit(self._read, number)
        if number not in self._ahead:
            if number not in self._others:
                self._bytes += int(self._sizes[number])
            self._others[number] = None
            self._others.move_to_end(number)
        return future

    def _let_go(self) -> None:
        """Of the others, the first, while they are too large and are not being read."""
        while self._bytes > WINDOW_BYTES and len(self._others) > _LEAST:
            first = next(iter(self._others))
            if not self._held[first].done():
                break
            del self._held[first], self._others[first]
            self._bytes -= int(self._sizes[first])

    def _following(self, number: int) -> range:
        stop, length = number + 1, 0
        while stop < min(len(self._sizes), number + 1 + _AT_ONCE):
            length += int(self._sizes[stop])
            if stop > number + 1 and length > WINDOW_BYTES // 4:
                break
            stop += 1
        return range(number + 1, stop)


def _has_failed(future: Future[Any]) -> bool:
    """Whether it is to be tried again: what could not be read ahead may be there in its turn."""
    return future.done() and (future.cancelled() or future.exception() is not None)


@dataclass(frozen=True)
class _Reader:
    """Reads the row groups of some Parquet files; no closure, so that other processes can have it.

    Attributes:
        shards: The Parquet files.
        index: Of these and perhaps of others.
        numbers: Which files of the index these are.
        file_of: Number of the file of each row group, among these.
        group_in: Number of each row group in its file.
        leaf: The column.
    """

    shards: Shards
    index: RowGroupIndex
    numbers: list[int]
    file_of: Int[np.ndarray, " K"]
    group_in: Int[np.ndarray, " K"]
    leaf: str

    def __call__(self, number: int) -> Any:
        """The part of the column in a row group; None where the file has no such column."""
        file, group = int(self.file_of[number]), int(self.group_in[number])
        metadata = self.index.metadata(self.numbers[file], self.shards.shown(file))
        if self.leaf not in leaves_of(metadata):
            return None
        return read_column(self.shards, file, metadata, group, self.leaf, checked=True)


@dataclass(frozen=True, kw_only=True)
class RowGroupSource(FileSource):
    """Files in a column of Parquet files.

    Attributes:
        shards: The Parquet files.
        held: The column's parts by row group.
        beside: Reads those of the column of texts; None without any.
    """

    shards: Shards
    held: Held[Any]
    beside: _Reader | None

    @property
    def texts_of(self) -> str | None:
        """The column of texts."""
        return None if self.beside is None else f"column {self.beside.leaf}"

    def texts(self) -> list[str]:
        """The column of texts.

        Raises:
            UserError: as :meth:`file`, or a file has something else in this column.
        """
        beside, blocks = self.beside, self.blocks
        if beside is None or blocks is None:
            return super().texts()
        pa, _ = pyarrow(self.name)

        def of_block(number: int) -> list[str]:
            column = beside(number)
            if column is None:
                return [""] * len(blocks.range(number))
            if not is_text(pa, column.type):
                shown = self.shards.shown(int(beside.file_of[number]))
                raise UserError(
                    f"the column {beside.leaf} of {shown} is of {column.type}, and of texts in "
                    "the first file: write texts"
                )
            return [as_caption(text) for text in column.to_pylist()]

        with lone_threads(_AT_ONCE, "texts") as threads:
            return list(chain.from_iterable(threads.map(of_block, range(len(blocks.ends)))))

    def file(self, i: int) -> ByteFile:
        """The content of row ``i``.

        Raises:
            UnreadableError: there are no bytes in this row, or it is too large.
            UserError: the Parquet file is another one now, or cannot be had.
        """
        assert self.blocks is not None
        number = int(np.searchsorted(self.blocks.ends, i, "right"))
        value = self.held[number][i - self.blocks.range(number).start]
        if not value.is_valid:
            raise UnreadableError("no bytes in this row")
        # a value of a dictionary stands for the one that it has
        content = memoryview(getattr(value, "value", value).as_buffer())
        if len(content) > MAX_BYTES:
            raise UnreadableError(f"larger than {MAX_BYTES >> 30} GB")
        return io.BytesIO(content)

    def read_ahead(self, blocks: Sequence[int]) -> None:
        self.held.read_ahead(blocks)

    def fingerprint(self) -> str:
        return self.shards.fingerprint()


def found(name: str, shards: Shards, wanted: Wanted) -> Found:
    """The files in Parquet files, and their parts."""
    index = indexed(shards, name, wanted)
    of_files = [_part(path) for path in shards.paths]

    def open_part(part: str | None) -> RowGroupSource:
        numbers = [n for n, its in enumerate(of_files) if part is None or its == part]
        if not numbers:
            raise UserError(f"{name} has no split {part!r}: give the files of each part by name")
        return _source(name if part is None else f"{name} {part}", shards, index, numbers)

    parts = parts_of({part for part in of_files if part is not None})
    return Found(open_part, parts, parts.get("train"))


def _part(path: str) -> str | None:
    file = PurePosixPath(path.replace("\\", "/"))
    folder = file.parent.name
    return part_of_file(file.name) or (folder if folder.lower() in PARTS else None)


def _source(name: str, shards: Shards, index: RowGroupIndex, numbers: list[int]) -> RowGroupSource:
    """Some of the Parquet files, as one source."""
    its = shards.some(numbers)
    starts = np.concatenate([[0], index.group_ends])
    file_of = np.repeat(np.arange(len(numbers)), [starts[n + 1] - starts[n] for n in numbers])
    group_in = np.concatenate([np.arange(starts[n + 1] - starts[n]) for n in numbers])
    groups = index.groups[starts[np.array(numbers)][file_of] + group_in]
    blocks = Blocks(np.cumsum(groups[:, 0]), groups[:, 1])
    rows_of_file = np.bincount(file_of, groups[:, 0], len(numbers)).astype(np.int64)

    largest = int(blocks.sizes.max(initial=0))
    if largest > (free := free_memory_bytes()):
        raise UserError(
            f"{name} has a row group of {largest >> 20} MB, and {free >> 20} MB of memory are "
            "free: write it with smaller ones"
        )

    def reader(leaf: str) -> _Reader:
        return _Reader(its, index, numbers, file_of, group_in, leaf)

    columns = index.columns
    notes: tuple[str, ...] = ()
    if 2 * largest > WINDOW_BYTES:
        notes = (
            f"{name} has row groups of up to {largest >> 20} MB: four of them are in memory at "
            "once; smaller ones need less and are mixed better",
        )
    return RowGroupSource(
        name=name,
        names=RowNames(_names(its.paths), np.cumsum(rows_of_file)),
        labels=_labels(index, numbers),
        class_names=columns.class_names,
        notes=notes,
        blocks=blocks,
        shards=its,
        held=Held(reader(columns.files), blocks.sizes),
        beside=None if columns.text is None else reader(columns.text),
    )


def _names(paths: Sequence[str]) -> list[str]:
    """The files by their names, and by their folders too where two have one name."""
    posix = [path.replace("\\", "/") for path in paths]
    names = [posixpath.basename(path) for path in posix]
    if len(set(names)) == len(names):
        return names
    common = posixpath.commonpath(posix)
    return [posixpath.relpath(path, common) for path in posix]


def _labels(index: RowGroupIndex, numbers: list[int]) -> Int[Tensor, " N"] | None:
    if index.columns.label is None:
        return None
    # a private copy of what is changed, which nothing does; torch wants memory it could write
    mapped = torch.from_numpy(np.memmap(index.folder / "labels", np.int64, "c"))
    rows = np.concatenate([[0], np.cumsum(index.groups[:, 0])])
    starts = rows[np.concatenate([[0], index.group_ends])].tolist()
    if numbers == list(range(numbers[0], numbers[-1] + 1)):  # files of a part stand together
        return mapped[starts[numbers[0]] : starts[numbers[-1] + 1]]
    return torch.cat([mapped[starts[n] : starts[n + 1]] for n in numbers])
