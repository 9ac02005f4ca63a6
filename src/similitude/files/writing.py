"""Paths as users give them, and atomic files: on disk is the old content or the new, never half."""

import errno
import os
import re
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from similitude.errors import UserError, WritingError

_BLOCK = 1 << 24  # bytes
LOOKS = 3  # at a lock, before it is said to be somebody's
_SECONDS_BETWEEN_LOOKS = 0.02
_TEMPORARY = re.compile(r"\..+\.[\w-]+\.tmp(\..*)?")


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


def is_temporary(name: str) -> bool:
    """Whether a file or folder has the name of one that is not finished."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes were writing in the folder and below."""
    _remove_left(folder.rglob(".*.tmp*"))


def _remove_left(paths: Iterable[Path]) -> None:
    """Remove those that have the name of temporary ones, and are written by nobody now."""
    for path in filter(lambda path: is_temporary(path.name), paths):
        with suppress(OSError):
            file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if locked(file):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(file)


def locked(file: int, *, shared: bool = False, looks: int = 1) -> bool | None:
    """Whether a file's lock is ours now, until it is closed or the process ends, however it does.

    None where there are no locks: on Windows, and on some file systems.

    Args:
        file: its descriptor.
        shared: others may have such a lock too.
        looks: after which it is somebody's; who only looks has it for a moment.
    """
    try:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        if looks == 1:
            return False
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        return locked(file, shared=shared, looks=looks - 1)
    except (ImportError, OSError):
        return None
    return True


@contextmanager
def held(path: Path, make: Callable[[], object]) -> Iterator[bool]:
    """Make a file or folder, and hold its lock within the block; whether nobody else does.

    The lock tells in every container, and on every machine that sees the disk, what the number of
    a process does not; not on NFS, where only files that are open to write have one. It must be
    made again where a holder before has meanwhile removed it.
    """
    if os.name != "posix":  # a file that is open could not be moved
        make()
        yield True
        return
    while True:
        make()
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # somebody has taken it for a leftover
            continue
        is_ours = locked(file, looks=LOOKS) is not False
        with suppress(FileNotFoundError):
            if not is_ours or os.path.samestat(os.fstat(file), path.lstat()):
                break
        os.close(file)
    try:
        yield is_ours
    finally:
        os.close(file)


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Within the block no other process is in such a block of the same folder: it waits before.

    For what is read, completed and written again, which takes no time. Where there are no locks
    (see :func:`locked`), nobody waits.
    """
    if os.name != "posix":  # a folder cannot be opened
        yield
        return
    file = os.open(folder, os.O_RDONLY)  # its own lock, so that no file is left
    try:
        while locked(file, looks=LOOKS) is False:
            pass
        yield
    finally:
        os.close(file)


def version_of(path: Path) -> tuple[int, int]:
    """Tells one content of an atomic file from the next: every one is a file of its own."""
    try:
        status = path.stat()
    except FileNotFoundError:  # it is being replaced
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _temporary(path: Path) -> Path:
    """A name that nobody else takes: numbers of processes repeat in containers."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")


@contextmanager
def making(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Yield something new beside ``path`` that is moved there, synced, if the block succeeds."""
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = f"{path.name.lstrip('.')}."  # also of a temporary file that was itself written so
        _remove_left(p for p in path.parent.iterdir() if p.name.lstrip(".").startswith(own))
        with held(temporary, lambda: make(temporary)):
            yield temporary
            for written in (temporary, *temporary.rglob("*")):
                if written.is_file():
                    with written.open("rb+") as file:
                        os.fsync(file.fileno())
            temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise writing_error(path, error) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the names in the folder on the disk: what was moved stays moved when power fails."""
    with suppress(OSError):  # on Windows, and on some file systems
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file beside ``path``; move it there, synced to disk, if the block succeeds.

    What a process that was killed has left of it goes.

    Raises:
        UserError: the disk is full or the folder cannot be written; ``path`` is as it was.
    """
    with making(path, lambda temporary: temporary.touch(exist_ok=False)) as temporary:
        yield temporary


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``; move it there, synced, if the block succeeds.

    Raises:
        UserError: there is something at ``path`` already, the disk is full, or nothing can be
            written there; of what was begun nothing stays.
    """
    check_writable(path, "new")
    if path.exists() and any(path.iterdir()):
        raise UserError(f"{path} is there already and is not empty: give a new folder")
    with making(path, Path.mkdir) as temporary:
        yield temporary


def remove_folder(folder: Path) -> None:
    """Remove a folder as a whole: no part of it keeps its name, also if the process is killed."""
    doomed = _temporary(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


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


def reserve(file: BinaryIO, numel: int) -> None:
    """Claim the room on the disk now, so that a full disk shows before an hour of work.

    Writing to a mapped file that has no room kills the process.

    Raises:
        OSError: the disk has no room for so many bytes.
    """
    there = getattr(os.fstat(file.fileno()), "st_blocks", 0) * 512  # not known on every system
    if shutil.disk_usage(file.name).free < numel - there:  # where nothing can be claimed
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with suppress(AttributeError):  # not on every system
        try:
            os.posix_fallocate(file.fileno(), 0, numel)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise


def writing_error(path: Path, error: OSError) -> WritingError:
    """The sentence for a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        sentence = f"the disk is full: cannot write {path}; free some space and run again"
        return WritingError(sentence)
    return WritingError(f"cannot write {path}: {error.strerror or error}")
