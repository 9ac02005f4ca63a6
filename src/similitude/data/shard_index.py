"""Where the samples of tar files lie: made once of their headers, kept in the cache, read in place.

    index.json    facts, and the checksums of the other files
    places        int64 [N, 2]: first byte and length of each sample in its shard
    names         of all samples, joined by line feeds
    bounds        int64 [N + 1]: where each name begins
    parts         uint8 [N]: number of the part
    labels        int64 [N]: number of the class, -1 where it is unknown; if any is known
texts         int64 [N, 2]: first byte and length of what is written beside it; if anything is

Samples stand in the order of the shards, and in each by their place. Whatever the number of
samples, none of this is held in memory; labels are mapped.

Letters: N samples.
"""

import posixpath
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.classes import class_counts, numbered_classes
from similitude.data.files import Wanted
from similitude.data.index import Shards, kept_index
from similitude.data.names import Names
from similitude.data.parts import PARTS, part_of_file
from similitude.errors import UserError

_FORMAT = 3  # larger when the same shards would give other files
_LABEL, TEXT = ".cls", ".txt"
_LONGEST_LABEL = 1000  # bytes
_BLOCK = 1 << 20  # samples
_LOOKED_AT = 16  # files, to tell what a shard is of
_COLUMNS = ("places", "names", "bounds", "parts", "labels", "texts")


class Place(NamedTuple):
    """Number of a shard, and first byte and length of a file in it."""

    shard: int
    start: int
    length: int


@dataclass(frozen=True)
class ShardIndex:
    """The index of some shards.

    Attributes:
        folder: Of its files.
        ends: How many samples there are up to the end of each shard.
        part_names: Of the parts by number; None for what is of no part.
        class_names: Of the classes that occur, or None.
        others: How many files are not wanted, by suffix.
        endless: Shards that end where another file could follow: tar files end with a mark.
    """

    folder: Path
    ends: Int[np.ndarray, " S"]
    part_names: list[str | None]
    class_names: list[str] | None
    others: Counter[str]
    endless: list[str]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, row: int) -> Place:
        """Of a sample."""
        return self._place("places", row)

    @property
    def has_texts(self) -> bool:
        """Whether anything is written beside a sample."""
        return (self.folder / "texts").stat().st_size > 0

    def text_place(self, row: int) -> Place:
        """Of what is written beside a sample; its length is 0 where nothing is."""
        return self._place("texts", row)

    def _place(self, column: str, row: int) -> Place:
        start, length = np.fromfile(self.folder / column, np.int64, 2, offset=16 * row).tolist()
        return Place(int(np.searchsorted(self.ends, row, "right")), start, length)

    def rows(self, part: str | None) -> "range | Int[np.ndarray, ' M']":
        """The samples of a part; all for None."""
        if part is None:
            return range(len(self))
        if part not in self.part_names:
            return range(0)
        if len(self.part_names) == 1:
            return range(len(self))
        is_in = np.memmap(self.folder / "parts", np.uint8, "r") == self.part_names.index(part)
        first, last = int(is_in.argmax()), len(self) - int(is_in[::-1].argmax())
        if int(np.count_nonzero(is_in)) == last - first:  # shards of a part stand together
            return range(first, last)
        return np.flatnonzero(is_in)

    def names(self, rows: "range | Int[np.ndarray, ' M']") -> Names:
        """Of these samples."""
        return Names(self.folder / "names", self.folder / "bounds", rows)

    def labels(
        self, rows: "range | Int[np.ndarray, ' M']"
    ) -> tuple[Int[Tensor, " M"], list[str]] | tuple[None, None]:
        """The classes of these samples, and the names of those that occur among them."""
        if self.class_names is None:
            return None, None
        # a private copy of what is changed, which nothing does; torch wants memory it could write
        mapped = torch.from_numpy(np.memmap(self.folder / "labels", np.int64, "c"))
        if isinstance(rows, range):
            labels = mapped[rows.start : rows.stop]
            if len(rows) == len(self):
                return labels, self.class_names
        else:
            labels = mapped[torch.from_numpy(rows)]
        count = class_counts(labels, len(self.class_names))
        if not count.any():
            return None, None
        if (count > 0).all():
            return labels, self.class_names
        number = torch.cat([(count > 0).cumsum(0) - 1, torch.tensor([-1])])
        kept = [name for name, n in zip(self.class_names, count.tolist(), strict=True) if n]
        return number[labels], kept


def indexed(shards: Shards, name: str, wanted: Wanted) -> ShardIndex:
    """The index of some shards, made now or found in the cache.

    Raises:
        UserError: a file that is no tar file, is compressed or cut off; no sample in any; a class
            that is no short text; no room on the disk.
    """
    key = f"{_FORMAT} {wanted.suffixes} {shards.fingerprint()}"
    folder, facts = kept_index(key, _COLUMNS, lambda place: _write(place, shards, name, wanted))
    return ShardIndex(
        folder,
        np.cumsum(facts["counts"]),
        facts["part_names"],
        facts["class_names"],
        Counter(facts["others"]),
        facts["endless"],
    )


def begins_with(shards: Shards, wanted: Wanted) -> bool:
    """Whether some of the first files in the first shard are wanted; of none that can be read, no.

    Raises:
        UserError: the network is gone.
    """
    try:
        with (
            shards.store.open(shards.paths[0], shards.sizes[0]) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
        ):
            suffixes = (posixpath.splitext(member.name)[1].lower() for member in tar)
            return any(suffix in wanted.suffixes for suffix in islice(suffixes, _LOOKED_AT))
    except UserError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return False


class _Scan(NamedTuple):
    """What the headers of a shard say, sample by sample."""

    names: list[str]
    parts: list[str | None]
    classes: list[str | None]
    places: list[tuple[int, int]]
    texts: list[tuple[int, int]]
    others: Counter[str]
    has_end: bool


def _write(folder: Path, shards: Shards, name: str, wanted: Wanted) -> dict[str, Any]:
    """Read all headers, and write the files; their facts."""
    parts: dict[str | None, int] = {}
    classes: dict[str, int] = {}
    counts: list[int] = []
    others: Counter[str] = Counter()
    endless: list[str] = []
    length, has_texts = 0, False
    with ExitStack() as stack:
        columns = {c: stack.enter_context((folder / c).open("wb")) for c in _COLUMNS}
        columns["bounds"].write(bytes(8))
        for scan in _scans(shards, name, wanted):
            counts.append(len(scan.names))
            others += scan.others
            if not scan.has_end:
                endless.append(shards.paths[len(counts) - 1])
            encoded = [one.encode() + b"\n" for one in scan.names]
            lengths = np.array([len(one) for one in encoded], np.int64)
            columns["names"].write(b"".join(encoded))
            columns["bounds"].write((length + np.cumsum(lengths)).tobytes())
            length += int(lengths.sum())
            columns["places"].write(np.array(scan.places, np.int64).tobytes())
            numbers = [parts.setdefault(part, len(parts)) for part in scan.parts]
            columns["parts"].write(np.array(numbers, np.uint8).tobytes())
            known = [
                -1 if text is None else classes.setdefault(text, len(classes))
                for text in scan.classes
            ]
            columns["labels"].write(np.array(known, np.int64).tobytes())
            has_texts = has_texts or any(length for _, length in scan.texts)
            columns["texts"].write(np.array(scan.texts, np.int64).tobytes())
    if not sum(counts):
        raise UserError(
            f"no {wanted.noun} in {name}: looked in {len(shards.paths)} tar file(s) for "
            f"{' '.join(wanted.suffixes)}"
        )
    if not has_texts:
        (folder / "texts").write_bytes(b"")
    numbers, class_names = numbered_classes(classes)
    _number(folder / "labels", numbers)
    return {
        "counts": counts,
        "part_names": list(parts),
        "class_names": class_names,
        "others": dict(others),
        "endless": endless,
    }


def _number(path: Path, numbers: Int[Tensor, " T"] | None) -> None:
    """Put the numbers of classes where those of texts stand; nothing where no class is known."""
    if numbers is None:
        path.write_bytes(b"")
        return
    number = np.append(numbers.numpy(), -1)  # the last entry is where -1 looks
    mapped = np.memmap(path, np.int64, "r+")
    for start in range(0, len(mapped), _BLOCK):
        mapped[start : start + _BLOCK] = number[mapped[start : start + _BLOCK]]
    mapped.flush()


def _scans(shards: Shards, name: str, wanted: Wanted) -> Iterator[_Scan]:
    """The headers of all shards, in the order of the shards."""
    # of parts
    in_folders = len({posixpath.dirname(path) for path in map(_posix, shards.paths)}) > 1
    return shards.each(
        lambda number, left_off: _scan(shards, number, in_folders, wanted, left_off),
        f"headers of {name}",
    )


def _posix(path: str) -> str:
    return path.replace("\\", "/")


def _scan(
    shards: Shards, number: int, in_folders: bool, wanted: Wanted, left_off: threading.Event
) -> _Scan:
    path = PurePosixPath(_posix(shards.paths[number]))
    files, classes, texts, others, has_end = _headers(shards, number, wanted, left_off)
    of_shard = part_of_file(path.name)
    if in_folders:
        of_shard = path.parent.name if path.parent.name.lower() in PARTS else None
    scan = _Scan([], [], [], [], [], others, has_end)
    for file, place in files.items():
        part, shown = of_shard, file
        folder, slash, below = file.partition("/")
        if slash and not in_folders and folder.lower() in PARTS:
            part, shown = folder, below
        if len(shards.paths) > 1:
            shown = f"{path.name}/{shown}"
        scan.names.append(shown.encode(errors="backslashreplace").decode())
        scan.parts.append(part)
        scan.classes.append(classes.get(_key(file)))
        scan.places.append(place)
        scan.texts.append(texts.get(_key(file), (0, 0)))
    return scan


class _Headers(NamedTuple):
    """What lies in a shard."""

    files: dict[str, tuple[int, int]]  # first byte and length of each sample
    classes: dict[str, str]  # by key
    texts: dict[str, tuple[int, int]]  # first byte and length of what is beside a sample, by key
    others: Counter[str]
    has_end: bool


def _headers(shards: Shards, number: int, wanted: Wanted, left_off: threading.Event) -> _Headers:
    path, size = shards.paths[number], shards.sizes[number]
    shown = shards.store.shown(path)
    files: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    classes: dict[str, str] = {}
    texts: dict[str, tuple[int, int]] = {}
    others: Counter[str] = Counter()
    try:
        with (
            shards.store.open(path, size) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
        ):
            for member in tar:
                if left_off.is_set():  # nobody waits for it any more
                    break
                name = posixpath.normpath(member.name)
                if any(p.startswith(".") or p == "__MACOSX" for p in name.split("/")):
                    continue
                suffix = posixpath.splitext(name)[1].lower()
                if member.islnk() or member.issym():
                    folder = posixpath.dirname(name) if member.issym() else ""
                    links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
                elif not member.isfile():
                    continue
                elif suffix == _LABEL:
                    if member.size > _LONGEST_LABEL:
                        raise UserError(
                            f"{name} in {shown} is no class: it has more than {_LONGEST_LABEL} "
                            "bytes"
                        )
                    content = tar.extractfile(member)
                    text = b"" if content is None else content.read()
                    classes[_key(name)] = text.decode("utf-8-sig", errors="replace").strip()
                elif suffix in wanted.suffixes:
                    # holes of a sparse file are not stored: it is none that could be read in place
                    files[name] = (0, 0) if member.issparse() else (member.offset_data, member.size)
                elif suffix == TEXT and not member.issparse():
                    texts[_key(name)] = member.offset_data, member.size
                else:
                    others[suffix or "without suffix"] += 1
            stream.seek(tar.offset)
            tail = stream.read(tarfile.BLOCKSIZE)  # tarfile takes whatever is no header for the end
            if tail and tail != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"it is cut off or damaged at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"cannot read {shown}: {error}; shards are tar files without compression"
        ) from error
    for name, target in links.items():
        if posixpath.splitext(name)[1].lower() in wanted.suffixes:
            files[name] = files.get(target, (0, 0))  # a link to nothing is an empty file
        elif _key(target) in classes and name.endswith(_LABEL):
            classes[_key(name)] = classes[_key(target)]
    if alone := texts.keys() - {_key(name) for name in files}:
        others[TEXT] += len(alone)
    files = dict(sorted(files.items(), key=lambda file: file[1]))
    return _Headers(files, classes, texts, others, bool(tail))


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]
