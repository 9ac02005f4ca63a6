"""Decoded images: square canvases, and the facts that a crop or an evaluation needs.

Letters: N images, C channels, S side of a canvas in pixels, M images of a subset, K partners at
most.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt, UInt8
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from similitude.images.canvases import DEPTHS, Canvases
from similitude.images.lazy import LazyCanvases
from similitude.images.views.config import ImageFacts
from similitude.images.views.contact_sheet import as_shown, contact_sheet
from similitude.images.views.image import evaluation_view
from similitude.randomness import Blocks
from similitude.sample import MultiView, Samples

# Of raw pixels: more numbers make kNN and linear probes weaker, not stronger (docs/evaluation.md).
MAX_PIXEL_SIDE = 16
_AT_ONCE = 4096  # images whose raw pixels are made together


@dataclass(frozen=True)
class ImageSet(Samples[Canvases]):
    """Images decoded once, in memory or in one memory-mapped file.

    A canvas is the whole image, resized so that its short side is S and the long side is squashed
    to S as well; ``aspect`` undoes the squashing, so that crops keep the geometry of the papers.

    Attributes:
        pixels: Canvases, shape [N, C, S, S], uint8 or uint16; three channels are red, green and
            blue. Of very many images they are decoded when they are first taken out by
            ``pixels[index]``.
        aspect: Width / height of each original (as shown, after EXIF rotation), shape [N]; known
            once the canvas is.
        names: File name relative to the folder with ``/`` between the parts, or ``00012``.
        labels, class_names, unreadable, blocks: See :class:`Samples`.
        partners: See there: tiles of one picture have them, those that lie beside each.
    """

    pixels: UInt[Tensor, "N C S S"] | LazyCanvases
    aspect: Float[Tensor, " N"]
    names: Sequence[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        n, shape, kind = len(self.pixels), self.pixels.shape, self.pixels.dtype
        if len(shape) != 4 or shape[1] < 1 or kind not in DEPTHS:
            raise ValueError(
                "pixels must be uint8 or uint16 of shape [N, C, S, S], "
                f"not {kind} of shape {list(shape)}"
            )
        lengths = {"aspect": len(self.aspect), "names": len(self.names)}
        if self.labels is not None:
            lengths["labels"] = len(self.labels)
        if self.partners is not None:
            lengths["partners"] = len(self.partners)
        if wrong := {name: length for name, length in lengths.items() if length != n}:
            raise ValueError(f"{n} images but {wrong}")

    @property
    def size(self) -> int:
        """Side of the canvases in pixels."""
        return self.pixels.shape[-1]

    @property
    def channels(self) -> int:
        """C."""
        return self.pixels.shape[1]

    @property
    def depth(self) -> int:
        """Bits of a pixel."""
        return DEPTHS[self.pixels.dtype]

    @property
    def is_substitute(self) -> Bool[Tensor, " N"]:
        """Images in the place of one that cannot be read, as far as they have been looked at.

        Only among images that are decoded late; the others have left out what is unreadable.
        """
        if not isinstance(self.pixels, LazyCanvases) or not self.unreadable:
            return torch.zeros(len(self), dtype=torch.bool)
        unreadable = {name for name, _ in self.unreadable}
        found = np.fromiter((name in unreadable for name in self.names), bool, len(self))
        return torch.from_numpy(found)

    def read_ahead(self, blocks: Sequence[int]) -> None:
        """Begin to read these blocks, but for those of which all canvases are there."""
        if isinstance(self.pixels, LazyCanvases):
            self.pixels.read_ahead(blocks)

    def take(self, index: Int[Tensor, " M"] | slice) -> Canvases:
        """The canvases at these positions, in memory of their own unless it is a slice."""
        if isinstance(self.pixels, LazyCanvases):
            pixels, aspect = self.pixels.rows(self.pixels.positions(index))
            return Canvases(torch.from_numpy(pixels), torch.from_numpy(aspect))
        if isinstance(index, slice):
            return Canvases(self.pixels[index], self.aspect[index])
        return Canvases(_rows(self.pixels, index), _rows(self.aspect, index))

    def clean(self, rows: Canvases, facts: ImageFacts) -> Float[Tensor, "M C s s"]:
        """The whole canvas, resized with anti-aliasing and normalized."""
        return evaluation_view(rows, facts)

    def raw(self, beside: Sequence["ImageSet"] = ()) -> Float[Tensor, "N D"]:
        """Every image, resized to at most 16 px a side, as one row of numbers in [0, 1].

        A function of the canvases alone. Those of at most 16 px a side are taken as they are;
        larger ones give other last digits, whatever their size. One channel is kept where all
        are equal in all images, and in all of those beside.
        """
        plain = (0.0,) * self.channels, (1.0,) * self.channels
        small = ImageFacts(min(self.size, MAX_PIXEL_SIDE), *plain)
        channels = 1 if all(images.is_gray for images in (self, *beside)) else self.channels
        parts = (self.take(slice(i, i + _AT_ONCE)) for i in range(0, len(self), _AT_ONCE))
        return torch.cat([self.clean(part, small)[:, :channels].flatten(1) for part in parts])

    @property
    def is_gray(self) -> bool:
        """Whether the channels of every image are equal."""
        parts = (self.pixels[i : i + _AT_ONCE] for i in range(0, len(self), _AT_ONCE))
        return all(bool((part == part[:, :1]).all()) for part in parts)

    def sheet(self, views: MultiView, facts: ImageFacts, *, seed: int) -> Image:
        """The first images, each beside its views in several epochs."""
        columns = max(1, 8 // len(views))  # ten views in four epochs would not fit a screen
        rows = self.spread(8).take(slice(None))
        return contact_sheet(rows, views, facts, columns_per_view=columns, seed=seed)

    def copies(self) -> float:
        """The share of the images that are equal to another one, 0..1."""
        kinds = {hash(row.numpy().tobytes()) for row in self.pixels[:]}
        return 1 - len(kinds) / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """The canvases, made smaller where they are larger; see :func:`as_shown`."""
        pixels = as_shown(self.pixels[:])
        if self.size > side:
            pixels = resize(pixels, [side, side], antialias=True)
        return pixels.permute(0, 2, 3, 1).contiguous().numpy()

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "ImageSet":
        """The images at ``index``, in that order, without those that cannot be read.

        Args:
            index: Positions, a mask over all images, or a slice. A slice shares the pixels'
                memory (and the mapped file); anything else copies them.
        """
        rows: Tensor | slice
        kept: Sequence[str]
        if isinstance(index, slice):
            rows = index
            kept = self.names[index]
        else:
            rows = torch.as_tensor(index, device="cpu")
            if rows.dtype == torch.bool:
                rows = rows.nonzero()[:, 0]
            rows = rows.to(torch.int64)
            kept = [self.names[int(i)] for i in rows.tolist()]
        taken = self.take(rows)
        pixels, aspect = taken.pixels, taken.aspect
        if isinstance(self.pixels, LazyCanvases) and self.unreadable:
            unreadable = {name for name, _ in self.unreadable}
            good = torch.tensor([name not in unreadable for name in kept])
            rows = torch.from_numpy(self.pixels.positions(rows))[good]
            pixels, aspect = pixels[good], aspect[good]
            kept = [name for name in kept if name not in unreadable]
        partners = self.partners
        if partners is not None:
            partners = partners_among(partners, torch.arange(len(self))[rows])
        return ImageSet(
            pixels=pixels,
            aspect=aspect,
            names=kept,
            labels=None if self.labels is None else self.labels[rows],
            class_names=self.class_names,
            unreadable=self.unreadable,
            partners=partners,
        )


def partners_among(partners: Int[Tensor, "N K"], kept: Int[Tensor, " M"]) -> Int[Tensor, "M K"]:
    """The table of the images ``kept`` alone: positions among them, -1 for one that is not there.

    Args:
        partners: Of all images, -1 where there are fewer than K.
        kept: Positions, in their new order.
    """
    place = torch.full((len(partners) + 1,), -1)  # the last entry is where -1 looks
    place[kept] = torch.arange(len(kept))
    return place[partners[kept]]


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    # NumPy gathers in this thread alone; see the loader for what torch would do
    return torch.from_numpy(tensor.numpy()[index.numpy()])
