"""Tar files in the WebDataset convention: the files of a sample have a common name.

    000017.jpg  000017.cls        an image, and its class as text

An image is called ``SHARD.tar/NAME``, or NAME where there is a single shard. Its part is the folder
of its shard, the first word of the shard's name, or the first folder of its own name. Its class is
what the file ``KEY.cls`` beside it says, KEY being its name up to the first dot.

Only the headers are read at the start; an image is read where it lies, in any order. Nothing is
unpacked.
"""

import hashlib
import io
import posixpath
import re
import tarfile
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from similitude.data.classes import numbered_classes
from similitude.data.files import MAX_BYTES, ByteFile, UnreadableError, Wanted, told_unused
from similitude.data.openers import Found, Opener, is_path
from similitude.data.parts import PARTS, parts_of
from similitude.data.source import FileSource
from similitude.errors import UserError
from similitude.files.writing import as_path

SUFFIX = ".tar"
_LABEL = ".cls"
_LONGEST_LABEL = 1000  # bytes


@dataclass(frozen=True, kw_only=True)
class ShardSource(FileSource):
    """Images inside tar files that are not compressed.

    Attributes:
        shards: The tar files.
        places: Shape [N, 3]: number of the shard, first byte and length of each image.
    """

    shards: list[Path]
    places: Int[np.ndarray, "N 3"]

    def file(self, i: int) -> ByteFile:
        shard, start, length = self.places[i].tolist()
        if length > MAX_BYTES:
            raise UnreadableError(f"larger than {MAX_BYTES >> 30} GB")
        try:
            with self.shards[shard].open("rb") as file:
                file.seek(start)
                return io.BytesIO(file.read(length))
        except OSError as error:
            raise UnreadableError((error.strerror or str(error)).lower()) from error

    def fingerprint(self) -> str:
        """A hash of every shard's path, length and time."""
        digest = hashlib.sha256()
        for path in self.shards:
            status = path.stat()
            stamp = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(stamp.encode(errors="surrogateescape"))
        return digest.hexdigest()


def opener(wanted: Wanted) -> Opener:
    """Tar files of what is wanted."""

    def find(data: Any) -> Found:
        name, shards = str(data), shards_of(as_path(data), wanted)
        members, others = _members(shards, name, wanted)

        def open_part(part: str | None) -> ShardSource:
            kept = [m for m in members if part in (None, m.part)]
            if not kept:
                raise UserError(
                    f"{name} has no split {part!r}: give the shards of each part by name"
                )
            labels, class_names = numbered_classes(m.label for m in kept)
            return ShardSource(
                name=name if part is None else f"{name} {part}",
                names=[m.name for m in kept],
                labels=labels,
                class_names=class_names,
                notes=told_unused(name, wanted, others),
                shards=shards,
                places=np.array([(m.shard, m.start, m.length) for m in kept], dtype=np.int64),
            )

        parts = parts_of({m.part for m in members if m.part is not None})
        return Found(open_part, parts, parts.get("train"))

    return Opener(lambda data: is_path(data) and bool(shards_of(as_path(data), wanted)), find)


def shards_of(path: Path, wanted: Wanted) -> list[Path]:
    """The tar files that a path means: itself, those of a pattern, all of a folder of them.

    In a folder they lie side by side or in folders of parts (``train/``, ``val/``). A folder that
    holds samples or other folders too is none of shards.
    """
    if not path.is_dir():
        named = [path] if path.is_file() else path.parent.glob(path.name)
        is_shard = path.suffix.lower() == SUFFIX
        return sorted(p for p in named if p.is_file()) if is_shard else []
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


class _Member(NamedTuple):
    part: str | None  # "train", "valid", ... as it is called there
    name: str
    shard: int
    start: int  # first byte
    length: int
    label: str | None


def _members(shards: list[Path], name: str, wanted: Wanted) -> tuple[list[_Member], Counter[str]]:
    """The samples of all parts, by the headers alone, and how many files have another suffix.

    Raises:
        UserError: a file that is no tar file, or is compressed; no image in any; a class that is no
            short text.
    """
    members: list[_Member] = []
    others: Counter[str] = Counter()
    in_folders = len({path.parent for path in shards}) > 1  # of parts
    for number, path in enumerate(shards):
        found, labels = _read(path, others, wanted)
        of_shard = path.parent.name if in_folders else _first_word(path)
        for file, (start, length) in found.items():
            part, shown = of_shard, file
            folder, slash, below = file.partition("/")
            if slash and not in_folders and folder.lower() in PARTS:
                part, shown = folder, below
            if len(shards) > 1:
                shown = f"{path.name}/{shown}"
            members.append(_Member(part, shown, number, start, length, labels.get(_key(file))))
    if not members:
        raise UserError(
            f"no {wanted.noun} in {name}: looked in {len(shards)} tar file(s) for "
            f"{' '.join(wanted.suffixes)}"
        )
    return members, others


def _first_word(path: Path) -> str | None:
    word = re.split(r"[^a-z]", path.name.lower(), maxsplit=1)[0]
    return word if word in PARTS else None


def _read(
    path: Path, others: Counter[str], wanted: Wanted
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Where the images of a shard lie, and the texts of its classes by key."""
    files: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
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
                            f"{name} in {path} is no class: it has more than {_LONGEST_LABEL} bytes"
                        )
                    content = tar.extractfile(member)
                    text = b"" if content is None else content.read()
                    labels[_key(name)] = text.decode("utf-8-sig", errors="replace").strip()
                elif suffix in wanted.suffixes:
                    files[name] = member.offset_data, member.size
                else:
                    others[suffix or "without suffix"] += 1
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"cannot read {path}: {error}; shards are tar files without compression"
        ) from error
    for name, target in links.items():
        if posixpath.splitext(name)[1].lower() in wanted.suffixes:
            files[name] = files.get(target, (0, 0))  # a link to nothing is an empty file
        elif _key(target) in labels and name.endswith(_LABEL):
            labels[_key(name)] = labels[_key(target)]
    return dict(sorted(files.items(), key=lambda file: file[1])), labels


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]
