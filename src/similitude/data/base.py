"""What every source of images can do, before anything is decoded.

Letters: N images, H height, W width, K neighbours at most.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int, UInt8
from torch import Tensor


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
        neighbours: Positions of the images beside each image, or None; see :class:`ImageSet`.
    """

    name: str
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    notes: tuple[str, ...] = ()
    neighbours: Int[Tensor, "N K"] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def with_labels(self, labels: Int[Tensor, " N"], class_names: list[str]) -> "ImageSource":
        """The same images with other labels, for example those of :func:`read_labels`."""
        return dataclasses.replace(self, labels=labels, class_names=class_names)

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


def class_labels(
    classes: Sequence[str | None],
) -> tuple[Int[Tensor, " N"] | None, list[str] | None]:
    """Labels and the names they point to, of the classes that occur; None where none does.

    Numbers are names too, in their order: an identity such as 300000017 takes no more room than
    any other name.

    Args:
        classes: of each image; None, an empty text and -1 are unknown.
    """
    names = sorted({name for name in classes if name not in (None, "", "-1")})  # type: ignore[type-var]
    if not names:
        return None, None
    if all(name.isdecimal() for name in names):
        names.sort(key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    position: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    return torch.tensor([position.get(name, -1) for name in classes]), names


def numbered(prefix: str, n: int, start: int = 0) -> list[str]:
    """Names for ``n`` images that have none: ``train/00012``."""
    return [f"{prefix}{i:05d}" for i in range(start, start + n)]
