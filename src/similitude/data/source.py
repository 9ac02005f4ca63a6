"""What every source of images can do, before anything is decoded.

Letters: N images, H height, W width, K partners at most.
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor

from similitude.images import decoding
from similitude.images.decoding import ImageFile, UnreadableImageError, ValueRange


@dataclass(frozen=True, kw_only=True)
class ImageSource(ABC):
    """Images that can be listed without decoding them; :func:`load_images` decodes.

    Attributes:
        name: What this is, for people ("photos/train", "fashion-mnist test").
        names: Name of each image, sorted for a folder; see :class:`ImageSet`.
        labels: Class of each image, shape [N], -1 where unknown; None without any. For
            evaluations only.
        class_names: Name of each class, or None.
        notes: Choices that were made on the way and that people should hear of, as sentences.
        partners: Positions of the images beside each image, or None; see :class:`ImageSet`.
        values: Of deep pictures (16 bits, floats), or None where there are none.
    """

    name: str
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    notes: tuple[str, ...] = ()
    partners: Int[Tensor, "N K"] | None = None
    values: ValueRange | None = None

    def __len__(self) -> int:
        return len(self.names)

    def with_labels(self, labels: Int[Tensor, " N"], class_names: list[str]) -> "ImageSource":
        """The same images with other labels, for example those of :func:`read_labels`."""
        return dataclasses.replace(self, labels=labels, class_names=class_names)

    def with_values(self, values: ValueRange) -> "ImageSource":
        """The same images, whose deep pictures are shown in another range."""
        return dataclasses.replace(self, values=values)

    @abstractmethod
    def read(self, i: int, size: int | None = None) -> UInt8[Tensor, "3 H W"]:
        """Decode image ``i``.

        Args:
            i: Its position in ``names``.
            size: If given, a large image may come out smaller, though never below twice this
                short side.

        Raises:
            UnreadableImageError: the file is damaged or missing.
        """

    @abstractmethod
    def probe_size(self, i: int) -> tuple[int, int] | None:
        """Width and height of image ``i`` as :meth:`read` gives it, or None if it is unreadable."""

    def probe_sizes(self, sample: int = 200) -> list[tuple[int, int]]:
        """Width and height of ``sample`` images, evenly spread over the source.

        Only headers are read; files without a readable one are left out.
        """
        count = min(sample, len(self))
        sizes = [self.probe_size(i * len(self) // count) for i in range(count)]
        return [size for size in sizes if size is not None]

    def check_mapped(self) -> None:
        """Look whether a file that is mapped is still the one that was opened.

        Raises:
            UserError: it was changed in place, and reading beyond its end would kill the process.
        """
        return

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when the images change, for the cache."""


@dataclass(frozen=True, kw_only=True)
class FileSource(ImageSource):
    """Images that are encoded, each as a file of its own."""

    @abstractmethod
    def file(self, i: int) -> ImageFile:
        """The content of image ``i``, at its beginning.

        Raises:
            UnreadableImageError: it is missing, or no regular file.
        """

    def read(self, i: int, size: int | None = None) -> UInt8[Tensor, "3 H W"]:
        """Decode image ``i``; see :meth:`ImageSource.read`."""
        with self.file(i) as file:
            return decoding.decode(file, size, self.values)

    def probe_size(self, i: int) -> tuple[int, int] | None:
        """Size from the header of image ``i``; see :meth:`ImageSource.probe_size`."""
        try:
            with self.file(i) as file:
                return decoding.probe_size(file)
        except UnreadableImageError:
            return None

    def deep_values(self, i: int, count: int) -> np.ndarray | None:
        """About ``count`` of the stored values of image ``i``; None where it is not deep."""
        try:
            with self.file(i) as file:
                return decoding.deep_values(file, count)
        except UnreadableImageError:
            return None


def numbered(n: int, start: int = 0) -> list[str]:
    """Names for ``n`` images that have none: ``00012``."""
    return [f"{i:05d}" for i in range(start, start + n)]
