"""Decoded images: square uint8 canvases, and the facts that a crop or an evaluation needs.

Letters: N images, S side of a canvas in pixels, M images of a subset, K neighbours at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from similitude.data.lazy import LazyCanvases


@dataclass(frozen=True)
class ImageSet:
    """Images decoded once, in memory or in one memory-mapped file.

    A canvas is the whole image, resized so that its short side is S and the long side is squashed
    to S as well; ``aspect`` undoes the squashing, so that crops keep the geometry of the papers.

    Attributes:
        pixels: Canvases, shape [N, 3, S, S], uint8, always RGB. Of very many images they are
            decoded when they are first taken out by ``pixels[index]``.
        aspect: Width / height of each original (as shown, after EXIF rotation), shape [N]; known
            once the canvas is.
        names: File name relative to the folder with ``/`` between the parts, or ``00012``.
        labels: Class of each image, shape [N], -1 where unknown; None without any labels. Only
            evaluations look at them.
        class_names: Name of each class, or None.
        unreadable: Files that were left out, each with the reason in a few words.
        neighbours: Positions of the images beside each image, shape [N, K], -1 where there are
            fewer; None where nothing lies beside anything. Tiles of one picture have them.
    """

    pixels: UInt8[Tensor, "N 3 S S"] | LazyCanvases
    aspect: Float[Tensor, " N"]
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    neighbours: Int[Tensor, "N K"] | None = None

    def __post_init__(self) -> None:
        n = len(self.pixels)
        if self.pixels.ndim != 4 or self.pixels.shape[1] != 3 or self.pixels.dtype != torch.uint8:
            raise ValueError(
                f"pixels must be uint8 of shape [N, 3, S, S], not {self.pixels.dtype} of shape "
                f"{list(self.pixels.shape)}"
            )
        lengths = {"aspect": len(self.aspect), "names": len(self.names)}
        if self.labels is not None:
            lengths["labels"] = len(self.labels)
        if self.neighbours is not None:
            lengths["neighbours"] = len(self.neighbours)
        if wrong := {name: length for name, length in lengths.items() if length != n}:
            raise ValueError(f"{n} images but {wrong}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """Side of the canvases in pixels."""
        return self.pixels.shape[-1]

    @property
    def has_neighbours(self) -> bool:
        """Whether any image lies beside another."""
        return self.neighbours is not None and bool((self.neighbours >= 0).any())

    @property
    def is_substitute(self) -> Bool[Tensor, " N"]:
        """Images in the place of one that cannot be read, as far as they have been looked at.

        Only among images that are decoded late; the others have left out what is unreadable.
        """
        if not isinstance(self.pixels, LazyCanvases) or not self.unreadable:
            return torch.zeros(len(self), dtype=torch.bool)
        unreadable = {name for name, _ in self.unreadable}
        return torch.tensor([name in unreadable for name in self.names])

    def told_unreadable(self, name: str) -> str | None:
        """A sentence on the files of what is called ``name`` that are left out, or None."""
        if not self.unreadable:
            return None
        some = ", ".join(f"{file} ({reason})" for file, reason in self.unreadable[:3])
        more = ", ..." if len(self.unreadable) > 3 else ""
        count = len(self.unreadable)
        total = len(self) + count - int(self.is_substitute.sum())
        return f"{count} of {total} files in {name} cannot be read and are left out: {some}{more}"

    def spread(self, count: int) -> "ImageSet":
        """At most so many images, at even distances: names, and so classes, stand in order."""
        n, k = len(self), min(count, len(self))
        return self.subset([i * n // k for i in range(k)])

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "ImageSet":
        """The images at ``index``, in that order, without those that cannot be read.

        Args:
            index: Positions, a mask over all images, or a slice. A slice shares the pixels'
                memory (and the mapped file); anything else copies them.
        """
        rows: Tensor | slice
        if isinstance(index, slice):
            rows = index
            kept = self.names[index]
        else:
            rows = torch.as_tensor(index, device="cpu")
            if rows.dtype == torch.bool:
                rows = rows.nonzero()[:, 0]
            rows = rows.to(torch.int64)
            kept = [self.names[i] for i in rows.tolist()]
        pixels = self.pixels[rows]
        if bool((substitute := self.is_substitute[rows]).any()):
            rows, pixels = torch.arange(len(self))[rows][~substitute], pixels[~substitute]
            kept = [self.names[i] for i in rows.tolist()]
        neighbours = self.neighbours
        if neighbours is not None:
            neighbours = neighbours_among(neighbours, torch.arange(len(self))[rows])
        return ImageSet(
            pixels=pixels,
            aspect=self.aspect[rows],
            names=kept,
            labels=None if self.labels is None else self.labels[rows],
            class_names=self.class_names,
            unreadable=self.unreadable,
            neighbours=neighbours,
        )


def neighbours_among(neighbours: Int[Tensor, "N K"], kept: Int[Tensor, " M"]) -> Int[Tensor, "M K"]:
    """The table of the images ``kept`` alone: positions among them, -1 for one that is not there.

    Args:
        neighbours: Of all images, -1 where there are fewer than K.
        kept: Positions, in their new order.
    """
    place = torch.full((len(neighbours) + 1,), -1)  # the last entry is where -1 looks
    place[kept] = torch.arange(len(kept))
    return place[neighbours[kept]]
