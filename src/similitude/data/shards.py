"""Tar files in the WebDataset convention: the files of a sample have a common name.

    000017.jpg  000017.cls        an image, and its class as text

An image is called ``SHARD.tar/NAME``, or NAME where there is a single shard. Its part is the folder
of its shard, the first word of the shard's name, or the first folder of its own name. Its class is
what the file ``KEY.cls`` beside it says, KEY being its name up to the first dot.

The headers are read once, see :mod:`similitude.data.shard_index`; an image is read where it lies,
on a disk or behind a URL, in any order. Nothing is unpacked.
"""

import io
import tarfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from similitude.data.files import MAX_BYTES, ByteFile, UnreadableError, Wanted, told_unused
from similitude.data.openers import Found, Opener, is_path
from similitude.data.parts import PARTS, parts_of
from similitude.data.shard_index import ShardIndex, Shards, indexed
from similitude.data.source import FileSource
from similitude.data.stores import LOCAL, Store, expand_braces, files_of, is_url
from similitude.errors import UserError
from similitude.files.writing import as_path

SUFFIX = ".tar"
_HEADER = tarfile.BLOCKSIZE  # bytes, right before a file


@dataclass(frozen=True, kw_only=True)
class ShardSource(FileSource):
    """Images inside tar files that are not compressed.

    Attributes:
        shards: The tar files.
        index: Where everything lies in them.
        rows: Which images of the index these are.
    """

    shards: Shards
    index: ShardIndex
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

    def fingerprint(self) -> str:
        return self.shards.fingerprint()


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


def opener(wanted: Wanted) -> Opener:
    """Tar files of what is wanted, named by a path or a URL."""

    def find(data: Any) -> Found:
        name = str(data)
        if is_url(data):
            store, paths = files_of(name, SUFFIX, tuple(PARTS))
            if not paths:
                hub = "; hf:USER/NAME opens all else on the hub" if name.startswith("hf:") else ""
                raise UserError(
                    f"no {SUFFIX} files at {name}: name them, as s3://bucket/x-{{000..099}}.tar{hub}"
                )
        else:
            store, paths = LOCAL, [str(path) for path in shards_of(as_path(data), wanted)]
        shards = Shards.of(store, paths)
        index = indexed(shards, name, wanted)

        def open_part(part: str | None) -> ShardSource:
            rows = index.rows(part)
            if not len(rows):
                raise UserError(
                    f"{name} has no split {part!r}: give the shards of each part by name"
                )
            labels, class_names = index.labels(rows)
            return ShardSource(
                name=name if part is None else f"{name} {part}",
                names=index.names(rows),
                labels=labels,
                class_names=class_names,
                notes=told_unused(name, wanted, index.others) + _told_endless(index, store),
                shards=shards,
                index=index,
                rows=rows,
            )

        parts = parts_of(part for part in index.part_names if part is not None)
        return Found(open_part, parts, parts.get("train"))

    def claims(data: Any) -> bool:
        return is_url(data) or (is_path(data) and bool(shards_of(as_path(data), wanted)))

    return Opener(claims, find)


def shards_of(path: Path, wanted: Wanted) -> list[Path]:
    """The tar files that a path means: itself, those of a pattern, all of a folder of them.

    In a folder they lie side by side or in folders of parts (``train/``, ``val/``). A folder that
    holds samples or other folders too is none of shards.
    """
    if not path.is_dir():
        is_shard = path.suffix.lower() == SUFFIX
        if is_shard and "{" in path.name and not path.is_file():
            # what is missing is told by its name
            return [path.with_name(name) for name in expand_braces(path.name)]
        found = [path] if path.is_file() else path.parent.glob(path.name)
        return sorted(p for p in found if p.is_file()) if is_shard else []
    try:
        entries = [p for p in path.iterdir() if not p.name.startswith(".")]
    except OSError:  # who lists the folder next says why
        return []
    if any(p.suffix.lower() in wanted.suffixes for p in entries):
        return []
    folders = sorted(p for p in entries if p.is_dir())
    if not folders:
        return sorted(p for p in entries if p.suffix.lower() == SUFFIX and p.is_file())
    below = [shards_of(p, wanted) if p.name.lower() in PARTS else [] for p in folders]
    return list(chain.from_iterable(below)) if all(below) else []
