"""A folder of image files, flat or nested, with or without splits and classes.

Letters: N images.
"""

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data import decoding
from similitude.data.base import FileSource
from similitude.data.decoding import ImageFile
from similitude.errors import UserError

_SPLITS = {"train": ("train",), "test": ("test", "val"), "val": ("val",)}


@dataclass(frozen=True, kw_only=True)
class FolderSource(FileSource):
    """Image files below a folder.

    Attributes:
        folder: What the names are relative to.
        files: Path of each file below ``folder``: its name, but for letters that cannot be printed.
        base: The folder the user named: ``folder`` itself or, for a split, the one above it.
    """

    folder: Path
    files: list[str]
    base: Path

    def path(self, i: int) -> str:
        """Where file ``i`` is."""
        return os.path.join(self.folder, self.files[i])

    def file(self, i: int) -> ImageFile:
        """Open file ``i``; see :meth:`FileSource.file`."""
        return decoding.open_regular(self.path(i))

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


def open_folder(base: Path, split: str | None) -> FolderSource:
    """List the images of a folder, or of one split of it.

    Labels exist only where every image sits in a class folder directly below the (split) folder,
    and there are at least two of these. The classes of a split folder are those of all splits
    together, so that a class that one of them lacks does not shift the others.

    Args:
        base: The folder.
        split: "train", "test" (``test/``, else ``val/``), "val", or None: ``train/`` if there is
            also ``test/`` or ``val/``, else the whole folder.

    Raises:
        UserError: no such split, a folder that cannot be listed, or no image in it.
    """
    splits = split_folders(base)
    notes: list[str] = []
    folder = base
    if split is not None:
        folder = _pick(base, splits, split)
    elif splits:
        folder = splits["train"]
        others = sorted(p.name for p in _subfolders(base) if p.name != folder.name)
        notes.append(
            f"{base} has splits: {folder.name}/ is used, {', '.join(f'{o}/' for o in others)} not"
        )
    found, other_suffixes = _scan(folder)
    if not found:
        raise _no_image(folder, other_suffixes)
    if other_suffixes:
        listed = ", ".join(f"{count} {s}" for s, count in other_suffixes.most_common(5))
        notes.append(f"files in {folder} that are no known images are not used: {listed}")
    names = [_printable(file) for file in found]
    siblings = [splits[key] for key in splits] if folder != base else [folder]
    labels, class_names = _class_labels(names, siblings)
    return FolderSource(
        name=str(folder),
        names=names,
        labels=labels,
        class_names=class_names,
        notes=tuple(notes),
        folder=folder,
        files=found,
        base=base,
    )


def split_folders(base: Path) -> dict[str, Path]:
    """The folders of "train", and of "test" or "val" or both; empty unless two are there."""
    by_name = {path.name.lower(): path for path in _subfolders(base)}
    splits = {name: by_name[name] for name in ("train", "test", "val") if name in by_name}
    return splits if "train" in splits and len(splits) > 1 else {}


def image_names(folder: Path) -> list[str]:
    """Name of each image below ``folder``, relative to it, parts joined by ``/``, sorted."""
    return [_printable(file) for file in _scan(folder)[0]]


def _pick(base: Path, splits: dict[str, Path], split: str) -> Path:
    for name in _SPLITS.get(split, ()):
        if name in splits:
            return splits[name]
    raise UserError(
        f"{base} has no split {split!r}: that takes subfolders train/ and test/ (or val/)"
    )


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            named = [e.name for e in entries if _is_folder(e) and not _ignored(e.name)]
    except OSError as error:
        raise _cannot_list(folder, error) from error
    return [folder / name for name in sorted(named)]


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _scan(root: Path) -> tuple[list[str], Counter[str]]:
    """Path below ``root`` of each image, sorted by name, and how many files are none.

    Each physical folder is entered once, by its own path before any symbolic link to it: links in
    a circle end, and no image counts twice. Paths are plain strings: a million images are common,
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
        for entry in entries:
            if _ignored(entry.name):
                continue
            if _is_folder(entry):
                below = (f"{prefix}{entry.name}/", entry.path)
                (links if entry.is_symlink() else folders).append(below)
            elif (suffix := _suffix(entry.name)) not in decoding.SUFFIXES:
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


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _printable(name: str) -> str:
    # file names need not be text; what cannot be printed is escaped, so that it can be written
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name if shown == name else shown  # the same string twice is held once


def _class_labels(
    names: list[str], siblings: list[Path]
) -> tuple[Int[Tensor, " N"] | None, list[str] | None]:
    if any(name.count("/") != 1 for name in names):
        return None, None
    classes = {_class_of(name) for name in names}
    for folder in siblings:
        classes |= {_printable(sub.name) for sub in _subfolders(folder) if _has_image(sub)}
    if len(classes) < 2:
        return None, None
    class_names = sorted(classes)
    position = {name: i for i, name in enumerate(class_names)}
    return torch.tensor([position[_class_of(name)] for name in names]), class_names


def _class_of(name: str) -> str:
    return name[: name.index("/")]


def _has_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(_suffix(e.name) in decoding.SUFFIXES and not _ignored(e.name) for e in entries)


def _cannot_list(folder: str | Path, error: OSError) -> UserError:
    return UserError(f"cannot list the folder {folder}: {(error.strerror or str(error)).lower()}")


def _no_image(folder: Path, others: Counter[str]) -> UserError:
    looked = " ".join(decoding.SUFFIXES)
    there = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
    return UserError(
        f"no image in {folder}: looked there and in its subfolders for {looked}"
        + (f"; there are only other files ({there})" if there else "; it is empty")
    )
