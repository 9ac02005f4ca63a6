"""Tar files in the WebDataset convention: the files of a sample have a common name.

    000017.jpg  000017.cls        an image, and its class as text

A sample is called ``SHARD.tar/NAME``, or NAME where there is a single shard. Its part is the folder
of its shard, the first word of the shard's name, or the first folder of its own name. Its class is
what the file ``KEY.cls`` beside it says, its caption what ``KEY.txt`` says, KEY being its name up
to the first dot.

The headers are read once, see :mod:`similitude.data.shard_index`; a sample is read where it lies,
on a disk or behind a URL, in any order. Nothing is unpacked.
"""

import io
import tarfile
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from jaxtyping import Int

from similitude.data.files import MAX_BYTES, ByteFile, UnreadableError, Wanted, told_unused
from similitude.data.index import Shards
from similitude.data.openers import Found
from similitude.data.parts import parts_of
from similitude.data.shard_index import ShardIndex, indexed
from similitude.data.source import FileSource
from similitude.data.stores import Store
from similitude.errors import UserError

SUFFIX = ".tar"
_HEADER = tarfile.BLOCKSIZE  # bytes, right before a file


@dataclass(frozen=True, kw_only=True)
class ShardSource(FileSource):
    """Files inside tar files that are not compressed.

    Attributes:
        shards: The tar files.
        index: Where everything lies in them.
        rows: Which samples of the index these are.
        part: Which part of the index that is; None for all.
    """

    shards: Shards
    index: ShardIndex
    part: str | None
    rows: range | Int[np.ndarray, " N"]

    @property
    def readers(self) -> int:
        return self.shards.store.readers

    def file(self, i: int) -> ByteFile:
        """The content of sample ``i``, read with its header: a shard may have changed meanwhile.

        Raises:
            UnreadableError: it is too large.
            UserError: the shard is another one now, or cannot be had.
        """
        number, start, length = self.index.place(int(self.rows[i]))
        if length > MAX_BYTES:
            raise UnreadableError(f"larger than {MAX_BYTES >> 30} GB")
        if length == 0:
            return io.BytesIO()
        path = self.shards.paths[number]
        content = self.shards.store.read(path, start - _HEADER, start + length)
        if len(content) < _HEADER + length or not _is_header(content[:_HEADER], length):
            raise UserError(
                f"{self.shards.store.shown(path)} has changed since its headers were read: "
                f"{self.names[i]} is not where it was; go on with the shards as they were, or "
                "start a new run"
            )
        return io.BytesIO(memoryview(content)[_HEADER:])

    @property
    def texts_of(self) -> str | None:
        """Whether any of these samples has a file ``KEY.txt``."""
        return None if self.index.texts(self.rows) is None else "files KEY.txt"

    def texts(self) -> list[str]:
        """What these files say."""
        texts = self.index.texts(self.rows)
        return super().texts() if texts is None else list(texts)

    def fingerprint(self) -> str:
        """A hash of every shard's place, length and time, and of the part."""
        whole = self.shards.fingerprint()
        return whole if self.part is None else sha256(f"{whole} {self.part}".encode()).hexdigest()


def _is_header(block: bytes, length: int) -> bool:
    """Whether a block is the header of a file of this length."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size == length
    except tarfile.HeaderError:
        return False


def _told_endless(index: ShardIndex, store: Store) -> tuple[str, ...]:
    if not (endless := [store.shown(path) for path in index.endless]):
        return ()
    more = f" and {len(endless) - 1} more" if len(endless) > 1 else ""
    return (f"{endless[0]}{more} may be cut off: there is no mark of an end",)


def found(name: str, shards: Shards, wanted: Wanted) -> Found:
    """The samples in tar files, and their parts."""
    index = indexed(shards, name, wanted)

    def open_part(part: str | None) -> ShardSource:
        rows = index.rows(part)
        if not len(rows):
            raise UserError(f"{name} has no split {part!r}: give the shards of each part by name")
        labels, class_names = index.labels(rows)
        return ShardSource(
            name=name if part is None else f"{name} {part}",
            names=index.names(rows),
            labels=labels,
            class_names=class_names,
            notes=told_unused(name, wanted, index.others) + _told_endless(index, shards.store),
            shards=shards,
            index=index,
            rows=rows,
            part=part,
        )

    parts = parts_of(part for part in index.part_names if part is not None)
    return Found(open_part, parts, parts.get("train"))
