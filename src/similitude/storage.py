"""Atomic files: what is on disk is either the old content or the new, never half of it."""

import errno
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from similitude.errors import UserError

_BLOCK = 1 << 24  # bytes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there, synced to disk, if the block succeeds.

    Raises:
        UserError: the disk is full or the folder cannot be written; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
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
