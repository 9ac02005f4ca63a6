"""Tar files in the WebDataset convention: the files of a sample have a common name.

    000017.jpg  000017.cls        an image, and its class as text

Only the headers are read at the start; an image is read where it lies, in any order. Nothing is
unpacked.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor

from similitude.data import decoding
from similitude.data.base import ImageSource, class_labels
from similitude.data.decoding import UnreadableImageError
from similitude.errors import UserError

SUFFIX = ".tar"
_LABEL = ".cls"
_LONGEST_CLASS = 1000  # bytes


@dataclass(frozen=True, kw_only=True)
class ShardSource(ImageSource):
    """Images inside tar files that are not compressed.

    Attributes:
        shards: The tar files.
        places: Shape [N, 3]: number of the shard, first byte and length of each image.
    """

    shards: list[Path]
    places: Int[np.ndarray, "N 3"]

    def read(self, i: int, size: int | None = None) -> UInt8[Tensor, "3 H W"]:
        """Decode image ``i``; see :meth:`ImageSource.read`."""
        return decoding.decode(self._bytes(i), size)

    def probe_size(self, i: int) -> tuple[int, int] | None:
        """Size from the header of image ``i``; see :meth:`ImageSource.probe_size`."""
        try:
            return decoding.probe_size(io.BytesIO(self._bytes(i)))
        except UnreadableImageError:
            return None

    def fingerprint(self) -> str:
        """A hash of every shard's path, length and time."""
        digest = hashlib.sha256()
        for path in self.shards:
            status = path.stat()
            stamp = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(stamp.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _bytes(self, i: int) -> bytes:
        shard, start, length = self.places[i].tolist()
        try:
            with self.shards[shard].open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise UnreadableImageError((error.strerror or str(error)).lower()) from error


def shards_of(folder: Path) -> list[Path]:
    """The tar files in a folder, by name; none if there are images or folders in it too."""
    entries = [p for p in folder.iterdir() if not p.name.startswith(".")]
    others = (p for p in entries if p.is_dir() or p.suffix.lower() in decoding.SUFFIXES)
    if any(others):
        return []
    return sorted(p for p in entries if p.suffix.lower() == SUFFIX)


def open_shards(shards: list[Path], name: str) -> ShardSource:
    """List the images of tar files.

    An image is called ``SHARD.tar/NAME``, or NAME where there is a single shard. Its class is what
    the file ``KEY.cls`` beside it says, KEY being its name up to the first dot; an empty one and -1
    are unknown. The classes are those that occur, numbers in their order.

    Args:
        shards: One or more.
        name: What they are called together.

    Raises:
        UserError: a file that is no tar file, or is compressed; no image in any; a class that is
            no short text.
    """
    names: list[str] = []
    places: list[tuple[int, int, int]] = []
    classes: list[str | None] = []
    for number, path in enumerate(shards):
        prefix = f"{path.name}/" if len(shards) > 1 else ""
        labels: dict[str, str] = {}
        keys: list[str] = []
        for member, label in _members(path):
            key = _key(member.name)
            if label is not None:
                labels[key] = label
            elif Path(member.name).suffix.lower() in decoding.SUFFIXES:
                names.append(prefix + member.name)
                places.append((number, member.offset_data, member.size))
                keys.append(key)
        classes += [labels.get(key) for key in keys]
    if not names:
        raise UserError(
            f"no image in {name}: looked in {len(shards)} tar file(s) for "
            f"{' '.join(decoding.SUFFIXES)}"
        )
    numbers, class_names = class_labels(classes)
    return ShardSource(
        name=name,
        names=names,
        labels=numbers,
        class_names=class_names,
        shards=shards,
        places=np.array(places, dtype=np.int64),
    )


def _members(path: Path) -> list[tuple[tarfile.TarInfo, str | None]]:
    """The files in a shard, each with its text if it holds a class."""
    found: list[tuple[tarfile.TarInfo, str | None]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                label = None
                if member.name.endswith(_LABEL):
                    content = tar.extractfile(member)
                    text = b"" if content is None else content.read(_LONGEST_CLASS + 1)
                    if len(text) > _LONGEST_CLASS:
                        raise UserError(
                            f"{member.name} in {path} is no class: it has more than "
                            f"{_LONGEST_CLASS} bytes"
                        )
                    label = text.decode(errors="replace")
                found.append((member, None if label is None else label.strip()))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(
            f"cannot read {path}: {error}; shards are tar files without compression"
        ) from error
    return found


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]
