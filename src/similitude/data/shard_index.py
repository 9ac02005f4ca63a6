"""Where the samples of tar files lie: made once of their headers, kept in the cache, read in place.

    index.json    facts, and the checksums of the other files
    places        int64 [N, 2]: first byte and length of each sample in its shard
    names         of all samples, joined by line feeds
    bounds        int64 [N + 1]: where each name begins
    parts         uint8 [N]: number of the part
    labels        int64 [N]: number of the class, -1 where it is unknown; if any is known
    texts         what is written beside each sample, as names; if anything is
    text_bounds   int64 [N + 1]: likewise

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
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.classes import class_counts, numbered_classes
from similitude.data.files import LONGEST_TEXT, Wanted, as_caption
from similitude.data.index import Shards, kept_index
from similitude.data.names import Names
from similitude.data.parts import PARTS, part_of_file
from similitude.errors import UserError

_FORMAT = 3  # larger when the same shards would give other files
_LABEL, _TEXT = ".cls", ".txt"
_LONGEST_LABEL = 1000  # bytes
_BLOCK = 1 << 20  # samples
_LOOKED_AT, _AT_MOST = 16, 64  # samples and files, to tell what a shard is of
_COLUMNS = ("places", "names", "bounds", "parts", "labels", "texts", "text_bounds")


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

    def place(self, row: int) -> tuple[int, int, int]:
        """Number of the shard, first byte and length of a sample."""
        start, length = np.fromfile(self.folder / "places", np.int64, 2, offset=16 * row).tolist()
        return int(np.searchsorted(self.ends, row, "right")), start, length

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

    def texts(self, rows: "range | Int[np.ndarray, ' M']") -> Names | None:
        """What is written beside these samples, "" where nothing is; None where that is of none."""
        if not (self.folder / "texts").stat().st_size:
            return None
        texts = Names(self.folder / "texts", self.folder / "text_bounds", rows)
        return texts if any(texts) else None

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


def first_suffixes(shards: Shards) -> list[frozenset[str]]:
    """The suffixes of each of the first samples in the first shard; none of what is no tar file.

    Raises:
        UserError: the network is gone.
    """
    found: dict[str, set[str]] = {}
    try:
        with (
            shards.store.open(shards.paths[0], shards.sizes[0]) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
        ):
            for member in islice(tar, _AT_MOST):
                name = posixpath.normpath(member.name)
                if member.isfile() and not _is_hidden(name):
                    found.setdefault(_key(name), set()).add(posixpath.splitext(name)[1].lower())
                if len(found) > _LOOKED_AT:  # the last one may not be whole
                    break
    except UserError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return []
    return [frozenset(suffixes) for suffixes in islice(found.values(), _LOOKED_AT)]


class _Scan(NamedTuple):
    """What the headers of a shard say, sample by sample."""

    names: list[str]
    parts: list[str | None]
    classes: list[str | None]
    texts: list[str]
    places: list[tuple[int, int]]
    others: Counter[str]
    has_end: bool


def _write(folder: Path, shards: Shards, name: str, wanted: Wanted) -> dict[str, Any]:
    """Read all headers, and write the files; their facts."""
    parts: dict[str | None, int] = {}
    classes: dict[str, int] = {}
    counts: list[int] = []
    others: Counter[str] = Counter()
    endless: list[str] = []
    length, text_length, has_texts = 0, 0, False
    with ExitStack() as stack:
        columns = {c: stack.enter_context((folder / c).open("wb")) for c in _COLUMNS}
        columns["bounds"].write(bytes(8))
        columns["text_bounds"].write(bytes(8))
        for scan in _scans(shards, name, wanted):
            counts.append(len(scan.names))
            others += scan.others
            if not scan.has_end:
                endless.append(shards.paths[len(counts) - 1])
            length = _write_texts(scan.names, columns["names"], columns["bounds"], length)
            text_length = _write_texts(
                scan.texts, columns["texts"], columns["text_bounds"], text_length
            )
            has_texts = has_texts or any(scan.texts)
            columns["places"].write(np.array(scan.places, np.int64).tobytes())
            numbers = [parts.setdefault(part, len(parts)) for part in scan.parts]
            columns["parts"].write(np.array(numbers, np.uint8).tobytes())
            known = [
                -1 if text is None else classes.setdefault(text, len(classes))
                for text in scan.classes
            ]
            columns["labels"].write(np.array(known, np.int64).tobytes())
    if not sum(counts):
        raise UserError(
            f"no {wanted.noun} in {name}: looked in {len(shards.paths)} tar file(s) for "
            f"{' '.join(wanted.suffixes)}"
        )
    if not has_texts:
        for column in ("texts", "text_bounds"):
            (folder / column).write_bytes(b"")
    numbers, class_names = numbered_classes(classes)
    _number(folder / "labels", numbers)
    return {
        "counts": counts,
        "part_names": list(parts),
        "class_names": class_names,
        "others": dict(others),
        "endless": endless,
    }


def _write_texts(texts: list[str], file: BinaryIO, bounds: BinaryIO, start: int) -> int:
    """Add texts to those of before, which end at ``start``; where they end now."""
    encoded = [one.encode() + b"\n" for one in texts]
    ends = start + np.cumsum([len(one) for one in encoded], dtype=np.int64)
    file.write(b"".join(encoded))
    bounds.write(ends.tobytes())
    return int(ends[-1]) if len(ends) else start


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
        scan.texts.append(texts.get(_key(file), ""))
        scan.places.append(place)
    return scan


class _Headers(NamedTuple):
    """What lies in a shard."""

    files: dict[str, tuple[int, int]]  # first byte and length of each sample
    classes: dict[str, str]  # by key
    texts: dict[str, str]  # likewise what is written beside a sample
    others: Counter[str]
    has_end: bool


def _headers(shards: Shards, number: int, wanted: Wanted, left_off: threading.Event) -> _Headers:
    path, size = shards.paths[number], shards.sizes[number]
    shown = shards.store.shown(path)
    files: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    classes: dict[str, str] = {}
    texts: dict[str, str] = {}
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
                if _is_hidden(name):
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
                    classes[_key(name)] = _text(tar, member, _LONGEST_LABEL).strip()
                elif name == _key(name) + _TEXT:
                    # a character has at most four bytes, and three more may mark the encoding
                    texts[_key(name)] = as_caption(_text(tar, member, 4 * LONGEST_TEXT + 3))
                elif suffix in wanted.suffixes:
                    # holes of a sparse file are not stored: it is none that could be read in place
                    files[name] = (0, 0) if member.issparse() else (member.offset_data, member.size)
                else:
                    others[suffix or "without suffix"] += 1
            stream.seek(tar.offset)
            tail = stream.read(tarfile.BLOCKSIZE)  # tarfile takes whatever is no header for the end
            if tail and tail != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"it is cut off or damaged at byte {tar.offset}")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        is_cut = "unexpected end" in str(error) or "cut off" in str(error)
        advice = "" if is_cut else "; shards are tar files without compression"
        raise UserError(f"cannot read {shown}: {error}{advice}") from error
    for name, target in links.items():
        if posixpath.splitext(name)[1].lower() in wanted.suffixes:
            files[name] = files.get(target, (0, 0))  # a link to nothing is an empty file
        for suffix, said in ((_LABEL, classes), (_TEXT, texts)):
            if name == _key(name) + suffix and _key(target) in said:
                said[_key(name)] = said[_key(target)]
    if alone := texts.keys() - {_key(name) for name in files}:
        others[_TEXT] += len(alone)
    files = dict(sorted(files.items(), key=lambda file: file[1]))
    return _Headers(files, classes, texts, others, bool(tail))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> str:
    """The first bytes of a file as text."""
    content = tar.extractfile(member)
    return "" if content is None else content.read(most).decode("utf-8-sig", errors="replace")


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]
