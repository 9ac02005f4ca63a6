"""A folder of files, flat or nested, with or without splits and classes.

Letters: N files.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from similitude.data.classes import numbered_classes
from similitude.data.files import ByteFile, Wanted, open_regular, told_unused
from similitude.data.openers import Found, Opener, is_path
from similitude.data.parts import parts_of
from similitude.data.source import FileSource
from similitude.errors import UserError
from similitude.files.writing import as_path

# A folder with both is a run: its pictures are no photos.
_OF_A_RUN = {"recipe.yaml", "checkpoints"}
_LOOKED_AT = 1000  # files of a folder, to tell what it is of


@dataclass(frozen=True, kw_only=True)
class FolderSource(FileSource):
    """Files below a folder.

    Attributes:
        folder: What the names are relative to.
        files: Path of each file below ``folder``: its name, but for letters that cannot be printed.
        base: The folder the user named: ``folder`` itself or, for a split, the one above it.
        wanted: What was looked for.
    """

    folder: Path
    files: list[str]
    base: Path
    wanted: Wanted

    def path(self, i: int) -> str:
        """Where file ``i`` is."""
        return os.path.join(self.folder, self.files[i])

    def file(self, i: int) -> ByteFile:
        return open_regular(self.path(i))

    def fingerprint(self) -> str:
        """A hash of the folder's path and of every file's name, length and time."""
        digest = hashlib.sha256(str(self.folder.resolve()).encode(errors="surrogateescape"))
        for i, name in enumerate(self.names):
            try:
                status = os.stat(self.path(i))
                stamp = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
            except OSError:
                stamp = f"{name}\0missing\n"
            digest.update(stamp.encode())
        return digest.hexdigest()


def is_mostly(data: Any, wanted: Wanted) -> bool:
    """Whether a user named a folder, most of whose first thousand files are wanted."""
    if not isinstance(data, str | Path) or not is_path(data) or not as_path(data).is_dir():
        return False
    found = Counter(islice(_suffixes(as_path(data)), _LOOKED_AT))
    return 2 * sum(found[suffix] for suffix in wanted.suffixes) > found.total()


def _suffixes(folder: Path) -> Iterator[str]:
    """Of the files below a folder, in no order; folders that cannot be listed are left out."""
    for _, _, files in os.walk(folder):
        yield from (os.path.splitext(file)[1].lower() for file in files)


def opener(wanted: Wanted) -> Opener:
    """Folders of what is wanted."""

    def find(path: Any) -> Found:
        base = as_path(path)
        parts = parts_of(part_names(base))
        return Found(lambda part: open_folder(base, part, wanted), parts, parts.get("train"))

    return Opener(lambda data: is_path(data) and as_path(data).is_dir(), find)


def open_folder(base: Path, part: str | None, wanted: Wanted) -> FolderSource:
    """List the files of a folder, or of one of its parts.

    Labels exist only where every file sits in a class folder directly below the folder of the
    part, and there are at least two of these.

    Args:
        base: The folder.
        part: Name of a folder in it; None for the whole.
        wanted: What is looked for.

    Raises:
        UserError: no such part, a folder that cannot be listed, or nothing wanted in it.
    """
    if part is not None and part not in part_names(base):
        raise UserError(
            f"{base} has no split {part!r}: that takes subfolders train/ and test/ (or val/)"
        )
    folder = base if part is None else base / part
    found, other_suffixes = _scan(folder, wanted)
    if not found:
        raise _nothing_in(folder, wanted, other_suffixes)
    names = [_printable(file) for file in found]
    labels, class_names = _class_labels(names)
    return FolderSource(
        name=str(folder),
        names=names,
        labels=labels,
        class_names=class_names,
        notes=told_unused(str(folder), wanted, other_suffixes),
        folder=folder,
        files=found,
        base=base,
        wanted=wanted,
    )


def part_names(base: Path) -> list[str]:
    """The folders in a folder, by name: what may be parts of a data set."""
    try:
        with os.scandir(base) as entries:
            return sorted(e.name for e in entries if _is_folder(e) and not _ignored(e.name))
    except OSError as error:
        raise _cannot_list(base, error) from error


def file_names(folder: Path, wanted: Wanted) -> list[str]:
    """Name of each file below ``folder``, relative to it, parts joined by ``/``, sorted."""
    return [_printable(file) for file in _scan(folder, wanted)[0]]


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _scan(root: Path, wanted: Wanted) -> tuple[list[str], Counter[str]]:
    """Path below ``root`` of each file wanted, sorted by name, and how many files are none.

    Each physical folder is entered once, by its own path before any symbolic link to it: links in
    a circle end, and no file counts twice. Paths are plain strings: a million files are common,
    and ``Path`` costs ten times more.
    """
    found: list[str] = []
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    folders, links = [("", str(root))], []
    while folders or links:
        prefix, folder = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda e: e.name)
        except OSError as error:
            raise _cannot_list(folder, error) from error
        if {entry.name for entry in entries} >= _OF_A_RUN:
            continue
        for entry in entries:
            if _ignored(entry.name):
                continue
            if _is_folder(entry):
                below = (f"{prefix}{entry.name}/", entry.path)
                (links if entry.is_symlink() else folders).append(below)
            elif (suffix := os.path.splitext(entry.name)[1].lower()) not in wanted.suffixes:
                others[suffix or "without suffix"] += 1
            elif entry.is_symlink() or entry.is_file():  # no pipe; reading tells a broken link
                found.append(prefix + entry.name)
    found.sort(key=_printable)
    return found, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _printable(name: str) -> str:
    # file names need not be text; what cannot be printed is escaped, so that it can be written
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name if shown == name else shown  # the same string twice is held once


def _class_labels(names: list[str]) -> tuple[Int[Tensor, " N"] | None, list[str] | None]:
    if any(name.count("/") != 1 for name in names):
        return None, None
    labels, class_names = numbered_classes(name.partition("/")[0] for name in names)
    return (labels, class_names) if class_names and len(class_names) > 1 else (None, None)


def _cannot_list(folder: str | Path, error: OSError) -> UserError:
    return UserError(f"cannot list the folder {folder}: {(error.strerror or str(error)).lower()}")


def _nothing_in(folder: Path, wanted: Wanted, others: Counter[str]) -> UserError:
    looked = " ".join(wanted.suffixes)
    there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
    here = {path.name for path in folder.iterdir()}
    why = "it is empty" if not here else "there are no files to be seen"
    if here >= _OF_A_RUN:
        why = "it is the folder of a run"
    elif there:
        why = f"there are only other files ({there})"
    return UserError(
        f"no {wanted.noun} in {folder}: looked there and in its subfolders for {looked}; {why}"
    )
