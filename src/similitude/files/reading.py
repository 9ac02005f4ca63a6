"""Files that somebody else may have written: they run nothing, cost little, and are not believed.

Whatever is wrong with a file is told in one sentence, as a UserError, before it takes time or
memory that its size does not explain.
"""

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import yaml

from similitude.errors import UserError

MAX_YAML = 2**20  # bytes of a recipe
MAX_NAMES = 2**24  # of one that lists the names of classes
MAX_JSON = 2**24  # of what a run measured
MAX_LIST = 2**28  # of a table of files
MAX_ARRAYS = 2**30  # bytes that the arrays of one file of a run take when they are unpacked
_MAX_DEPTH = 30  # of values inside values
_MAX_INTEGER = 2**63

# What PyYAML and NumPy raise for values that are not what they claim to be.
_MISTAKES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# The same safe loader, in C where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Torch opens it, and it takes as much memory as the file says; no checkpoint of tensors has one.
_CLAIM = b"bytearray"


class Mapped:
    """The file that an array maps, as it is now; none of an array in memory.

    Reading from a map beyond the end of its file kills the process.

    Args:
        array: made by ``numpy.memmap``, or any other.

    Attributes:
        file: its place, or None.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.file: Path | None = getattr(array, "filename", None)
        self._then = None if self.file is None else os.stat(self.file)

    def check(self) -> None:
        """Look whether it is as it was; a file that took its name instead does no harm.

        Raises:
            UserError: it was changed in place.
        """
        then = self._then
        if self.file is None or then is None:
            return
        try:
            now = os.stat(self.file)
        except OSError:  # removed: what is mapped stays until the end
            return
        same = (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)
        if same and (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise UserError(
                f"{self.file} was changed while it was in use: start again, and replace such a "
                "file by moving the new one to its place"
            )


def damaged(path: Path, why: object) -> UserError:
    """The sentence for a file that cannot be read."""
    sentence = " ".join(str(why).split()) or type(why).__name__
    return UserError(f"cannot read {path}: {sentence}; delete the file or write it again")


def check_file(path: Path, most: int | None = None) -> int:
    """Refuse what is no ordinary file, and a file of more than ``most`` bytes; its size.

    Raises:
        UserError: it is missing, a folder, a pipe or a device, or too large.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"cannot read {path}: it is no ordinary file")
    if most is not None and status.st_size > most:
        raise UserError(
            f"cannot read {path}: it has {status.st_size:,} bytes, and such a file has at most "
            f"{most:,}"
        )
    return status.st_size


def read_bytes(path: Path, most: int) -> bytes:
    """The content of an ordinary file of at most ``most`` bytes.

    Raises:
        UserError: as :func:`check_file`, or it cannot be read.
    """
    check_file(path, most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or error) from error


def read_yaml(path: Path, most: int = MAX_YAML) -> Any:
    """The values in a YAML file of at most ``most`` bytes: UTF-8, or UTF-16 with its mark.

    Raises:
        UserError: as :func:`read_bytes` and :func:`parse_yaml`.
    """
    return parse_yaml(read_bytes(path, most), str(path))


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Plain values from YAML without aliases, which a few lines of can unfold to any size.

    Args:
        text: the YAML.
        where: it stands, for the sentence.

    Raises:
        UserError: it is not YAML, has an alias, is nested deeply, or holds what is no plain value.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                raise UserError(
                    f"{where} has the YAML alias *{event.anchor}: write the value out instead"
                )
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise _nested(where)
        return _plain(yaml.load(text, Loader=_Loader), where)
    except UserError:
        raise
    except (yaml.YAMLError, *_MISTAKES) as error:
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{where} is not valid YAML: {' '.join(problem.split())}") from error


def read_json(path: Path) -> Any:
    """The values in a JSON file.

    Raises:
        UserError: as :func:`read_bytes`; it is not JSON, or nested deeply.
    """
    try:
        return _plain(json.loads(read_bytes(path, MAX_JSON)), str(path))
    except UserError:
        raise
    except RecursionError as error:
        raise _nested(str(path)) from error
    except ValueError as error:
        raise damaged(path, error) from error


def read_arrays(path: Path, most: int = MAX_ARRAYS) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file, of at most ``most`` bytes when unpacked; nothing unpickled.

    Raises:
        UserError: as :func:`check_file`; it is damaged, or would take more memory.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(record.file_size for record in archive.infolist())
        if size > most:
            raise damaged(
                path, f"it unpacks to {size:,} bytes, and such a file to {most:,} at most"
            )
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except UserError:
        raise
    except Exception as error:  # of NumPy, zipfile and zlib; MemoryError of a size that is claimed
        raise damaged(path, error) from error


def array_names(path: Path) -> list[str]:
    """The names of the arrays in an ``.npz`` file; none if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def check_archive(path: Path, what: str) -> None:
    """Refuse a file of torch that takes more memory than its size when torch opens it.

    Torch stores its records plainly; a compressed one could fill the memory when read.

    Args:
        path: the file; of torch's older format, which cannot compress, or a zip archive.
        what: it is, for the sentences: they end with what to do.

    Raises:
        UserError: it is cut, damaged or compressed, or claims memory.
    """
    size = check_file(path)
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                claims, records = any(_CLAIM in part for part in _overlapping(file)), []
            else:
                archive = zipfile.ZipFile(file)
                records = archive.infolist()
                texts = [r for r in records if r.filename.endswith(".pkl") and not r.compress_type]
                claims = any(_CLAIM in archive.read(record) for record in texts)
    except OSError as error:
        raise damaged(path, error.strerror or error) from error
    except Exception as error:  # BadZipFile, and whatever else a damaged directory leads to
        raise UserError(f"{path} is cut or damaged: {what}") from error
    if claims:
        raise UserError(
            f"{path} holds an object of 'bytearray', which may claim any amount of memory: {what}"
        )
    plain = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    # records that lie over each other hold more together than the file
    if not plain or sum(record.file_size for record in records) > size:
        raise UserError(f"{path} is compressed, which torch's checkpoints are not: {what}")


def _overlapping(file: IO[bytes], size: int = 1 << 24) -> Iterator[bytes]:
    """The file in parts, each with the end of the one before."""
    before = b""
    while part := file.read(size):
        yield before + part
        before = part[-len(_CLAIM) :]


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """The same value, after a look at every part of it."""
    if depth > _MAX_DEPTH:
        raise _nested(where)
    if isinstance(value, dict):
        for item in value.values():
            _plain(item, where, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _plain(item, where, depth + 1)
    elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise UserError(f"{where} holds a number of {len(str(value))} digits")
    return value


def _nested(where: str) -> UserError:
    return UserError(f"{where} has values inside values more than {_MAX_DEPTH} deep")
