"""Names of very many samples, of which none is held in memory.

Letters: N names.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np

from similitude.files.writing import checksum

_BLOCK = 1 << 16  # names that are read at once


def _are_equal(ours: Sequence[str], other: object) -> bool:
    if not isinstance(other, Sequence) or len(ours) != len(other):
        return False
    return ours is other or all(a == b for a, b in zip(ours, other, strict=True))


def _checksum(names: Sequence[str]) -> int:
    found, before = 0, b""
    for name in names:
        found, before = zlib.crc32(before + name.encode(), found), b"\n"
    return found


class Numbered(Sequence[str]):
    """Names of samples that have none: ``00012``."""

    def __init__(self, rows: range) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Numbered": ...
    def __getitem__(self, index: int | slice) -> "str | Numbered":
        if isinstance(index, slice):
            return Numbered(self._rows[index])
        return f"{self._rows[index]:05d}"

    __eq__ = _are_equal
    __hash__ = None  # type: ignore[assignment]

    def checksum(self) -> int:
        """CRC-32 of the names joined by line feeds."""
        return _checksum(self)


class Names(Sequence[str]):
    """Names that stay in two files: their text, joined by line feeds, and where each begins.

    Args:
        text: UTF-8.
        bounds: int64, N + 1 of them: name i is ``text[bounds[i] : bounds[i + 1] - 1]``.
        rows: Which of them these are.
    """

    def __init__(self, text: Path, bounds: Path, rows: range | np.ndarray) -> None:
        self._text, self._bounds, self._rows = text, bounds, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Names": ...
    def __getitem__(self, index: int | slice) -> "str | Names":
        if isinstance(index, slice):
            return Names(self._text, self._bounds, self._rows[index])
        row = int(self._rows[index])
        return self._read(row, row + 1)[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            rows = self._rows[start : start + _BLOCK]
            if isinstance(rows, range) and rows.step == 1:
                yield from self._read(rows.start, rows.stop)
            else:
                yield from (self._read(int(row), int(row) + 1)[0] for row in rows)

    __eq__ = _are_equal
    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def _joined(self) -> int:
        if isinstance(self._rows, range) and self._rows.step == 1 and len(self):
            start, stop = self._bound(self._rows.start), self._bound(self._rows.stop) - 1
            with self._text.open("rb") as file:
                file.seek(start)
                return checksum(file, stop - start)
        return _checksum(self)

    def checksum(self) -> int:
        """CRC-32 of the names joined by line feeds."""
        return self._joined

    def _bound(self, row: int) -> int:
        return int(np.fromfile(self._bounds, np.int64, 1, offset=8 * row)[0])

    def _read(self, start: int, stop: int) -> list[str]:
        """Names ``start`` to ``stop - 1`` of all that the files hold."""
        bounds = np.fromfile(self._bounds, np.int64, stop - start + 1, offset=8 * start)
        with self._text.open("rb") as file:
            file.seek(int(bounds[0]))
            text = file.read(int(bounds[-1] - bounds[0]))
        ends = (bounds - bounds[0]).tolist()
        return [text[a : b - 1].decode() for a, b in pairwise(ends)]


class RowNames(Sequence[str]):
    """Names of the rows of files: ``train-000.parquet/00012``.

    Args:
        files: Names of the files.
        ends: How many rows there are up to the end of each.
        rows: Which of them these are; all if not given.
    """

    def __init__(self, files: Sequence[str], ends: np.ndarray, rows: range | None = None) -> None:
        self._files, self._ends = files, ends
        self._starts = np.concatenate([[0], ends[:-1]])
        self._rows = range(int(ends[-1])) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "RowNames": ...
    def __getitem__(self, index: int | slice) -> "str | RowNames":
        if isinstance(index, slice):
            return RowNames(self._files, self._ends, self._rows[index])
        return self._read(np.array([self._rows[index]]))[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            some = self._rows[start : start + _BLOCK]
            yield from self._read(np.arange(some.start, some.stop, some.step))

    __eq__ = _are_equal
    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def _joined(self) -> int:
        return _checksum(self)

    def checksum(self) -> int:
        """CRC-32 of the names joined by line feeds."""
        return self._joined

    def _read(self, rows: np.ndarray) -> list[str]:
        files = np.searchsorted(self._ends, rows, "right")
        numbers = rows - self._starts[files]
        pairs = zip(files.tolist(), numbers.tolist(), strict=True)
        return [f"{self._files[file]}/{number:05d}" for file, number in pairs]
