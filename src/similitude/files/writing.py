"""Paths as users give them, and atomic files: on disk is the old content or the new, never half."""

import errno
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from similitude.errors import UserError

_BLOCK = 1 << 24  # bytes
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp(\..*)?")  # with the number of the process that writes it


def as_path(given: str | Path) -> Path:
    """The path that a user means, which need not be there: ``~`` is the home folder.

    Raises:
        UserError: nothing was given, or something that can be no path: a name that is too long, a
            place that may not be looked into, ``~NAME`` of nobody here.
    """
    if not str(given).strip():
        raise UserError("an empty path was given: name a file or folder")
    try:
        path = Path(given).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read or write {given}: {why}; give another path") from error
    return path


def check_writable(path: Path, *below: str) -> None:
    """Refuse a place where nothing can be written, before any work is done for it.

    Args:
        path: a file to write, named in the sentence; or a folder, if something is
        below: it.

    Raises:
        UserError: it is below a file, read-only, of too long a name, or taken by something that is
            not a file.
    """
    place = path.joinpath(*below)
    try:
        with suppress(FileNotFoundError):  # what else is wrong with the longest name it needs
            _temporary(place).lstat()
        standing = next(p for p in (place, *place.parents) if os.path.lexists(p))
        if standing == place and place.is_file():
            standing = place.parent
        elif standing == place or not standing.is_dir():
            kind = "folder" if standing.is_dir() else "link to nothing"
            kind = "special file" if standing.exists() and kind != "folder" else kind
            raise UserError(f"cannot write {path}: {standing} is a {kind}; give another place")
        with tempfile.TemporaryFile(dir=standing):
            pass
    except OSError as error:
        raise UserError(f"{writing_error(path, error)}; give another place") from error


def contents(folder: Path) -> set[str]:
    """The names in a folder, without files that a killed process was writing."""
    return {p.name for p in folder.iterdir() if not _TEMPORARY.fullmatch(p.name)}


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes were writing in the folder and below."""
    for path in folder.rglob(".*.tmp*"):
        written = _TEMPORARY.fullmatch(path.name)
        if written and not _is_alive(int(written[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if process == os.getpid():  # one of another container, or of before: this one begins only now
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OverflowError:  # a name that no process has written
        return False
    except OSError:  # somebody else's
        pass
    return True


def version_of(path: Path) -> tuple[int, int]:
    """Tells one content of an atomic file from the next: every one is a file of its own."""
    try:
        status = path.stat()
    except FileNotFoundError:  # it is being replaced
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there, synced to disk, if the block succeeds.

    Raises:
        UserError: the disk is full or the folder cannot be written; ``path`` is as it was.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a link that somebody has put there
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise writing_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; move it there if the block succeeds.

    Raises:
        UserError: there is something at ``path`` already, the disk is full, or nothing can be
            written there; of what was begun nothing stays.
    """
    check_writable(path, "new")
    if path.exists() and any(path.iterdir()):
        raise UserError(f"{path} is there already and is not empty: give a new folder")
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise writing_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write(temporary_path)`` make the file, then move it to ``path``."""
    with replacing(path) as temporary:
        write(temporary)


def checksum(file: BinaryIO, count: int, before: int = 0) -> int:
    """CRC-32 of the next ``count`` bytes of a file, after bytes that gave ``before``."""
    while count > 0 and (part := file.read(min(count, _BLOCK))):
        before = zlib.crc32(part, before)
        count -= len(part)
    return before


def writing_error(path: Path, error: OSError) -> UserError:
    """The sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"the disk is full: cannot write {path}; free some space and run again")
    return UserError(f"cannot write {path}: {error.strerror or error}")
