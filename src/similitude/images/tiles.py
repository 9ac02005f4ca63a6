"""Large images cut into square tiles, each a sample that knows the tiles beside it.

Letters: N tiles, C channels, H height, W width, T side of a tile in pixels.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int, UInt
from torch import Tensor

from similitude.data.files import UnreadableError
from similitude.errors import UserError
from similitude.images.arrays import ArraySource
from similitude.images.source import ImageSource

# The image each thread decoded last: its tiles follow each other, and a large image is slow to
# decode. It is gone with the thread.
_latest = threading.local()


@dataclass(frozen=True, kw_only=True)
class TiledSource(ImageSource):
    """Tiles of the images of another source; see :func:`cut_into_tiles`.

    Attributes:
        source: Where the images come from.
        tile_size: T, in pixels.
        places: Shape [N, 3]: image in ``source``, top and left border of the tile in pixels; top
            is -1 for an image that stays whole.
    """

    source: ImageSource
    tile_size: int
    places: Int[Tensor, "N 3"]

    def read(self, i: int, size: int | None = None) -> UInt[Tensor, "C H W"]:
        """Decode tile ``i``, in full resolution; see :meth:`ImageSource.read`."""
        image, top, left = self.places[i].tolist()
        if top < 0:
            return self.source.read(image, size)
        whole, side = self._whole(image), self.tile_size
        tile = whole[:, top : top + side, left : left + side]
        if tile.shape[1:] != (side, side):
            raise UnreadableError("another size than its header says")
        return tile

    def _whole(self, image: int) -> UInt[Tensor, "C H W"]:
        if getattr(_latest, "source", None) is not self or _latest.number != image:
            _latest.source = None  # in case the image cannot be read
            _latest.pixels = self.source.read(image)
            _latest.source, _latest.number = self, image
        return _latest.pixels

    def read_ahead(self, blocks: Sequence[int]) -> None:
        """Of the images, as tiles lie in no blocks: let go of what is held."""
        self.source.read_ahead(blocks)

    def decoded_as(self, **fields: Any) -> "TiledSource":
        return replace(self, **fields, source=self.source.decoded_as(**fields))

    def probe_size(self, i: int) -> tuple[int, int] | None:
        """T x T, or the size of an image that stays whole; see :meth:`ImageSource.probe_size`."""
        image, top, _ = self.places[i].tolist()
        return self.source.probe_size(image) if top < 0 else (self.tile_size, self.tile_size)

    def fingerprint(self) -> str:
        """A hash of the images' own fingerprint and the size of the tiles."""
        text = f"{self.source.fingerprint()} in tiles of {self.tile_size}"
        return hashlib.sha256(text.encode()).hexdigest()


def cut_into_tiles(source: ImageSource, tile_size: int) -> TiledSource:
    """Cut every image into a grid of square tiles, row by row.

    The grid is centered; what does not fill a tile at the borders is left out. An image smaller
    than a tile, in height or width, stays whole and has no partners. Tile (r, c) of
    ``photo.jpg`` is called ``photo.jpg#r0c1``; it has the label of its image, and its partners
    are the tiles of the same image that share an edge with it.

    Args:
        source: Images of any sizes.
        tile_size: T, in pixels of the originals.

    Raises:
        UserError: a tile of no pixels, no image as large as a tile, or images that are squashed
            to canvases already.
    """
    if tile_size < 1:
        raise UserError(f"tiles of {tile_size} px; give tile_size at least 1")
    aspect = source.aspect if isinstance(source, ArraySource) else None
    if aspect is not None and not bool((aspect == 1).all()):
        raise UserError(
            f"{source.name} holds images squashed to squares, which cannot be cut into tiles: "
            "give the folder they come from"
        )
    names: list[str] = []
    places: list[Tensor] = []
    partners: list[Tensor] = []
    whole = 0
    for image, name in enumerate(source.names):
        width, height = source.probe_size(image) or (0, 0)  # decoding says what is wrong with it
        rows, columns = height // tile_size, width // tile_size
        if rows == 0 or columns == 0:
            whole += 1
            names.append(name)
            places.append(torch.tensor([[image, -1, -1]]))
            partners.append(torch.full((1, 4), -1))
            continue
        beside = _sharing_an_edge(rows, columns)
        partners.append(torch.where(beside < 0, -1, beside + len(names)))
        names += [f"{name}#r{r}c{c}" for r in range(rows) for c in range(columns)]
        top = torch.arange(rows) * tile_size + (height - rows * tile_size) // 2
        left = torch.arange(columns) * tile_size + (width - columns * tile_size) // 2
        places.append(torch.cartesian_prod(torch.tensor([image]), top, left))
    if whole == len(source):
        raise UserError(
            f"no image in {source.name} is as large as a tile of {tile_size} px; "
            "choose a smaller tile_size"
        )
    where = torch.cat(places)
    cut = len(source) - whole
    notes = [f"{cut:,} images are cut into {len(names) - whole:,} tiles of {tile_size} px"]
    if whole:
        notes.append(f"{whole:,} images are smaller than a tile, or unreadable, and stay whole")
    return TiledSource(
        name=f"{source.name}, in tiles of {tile_size} px",
        names=names,
        labels=None if source.labels is None else source.labels[where[:, 0]],
        class_names=source.class_names,
        notes=(*source.notes, *notes),
        partners=torch.cat(partners),
        channels=source.channels,
        depth=source.depth,
        values=source.values,
        source=source,
        tile_size=tile_size,
        places=where,
    )


def _sharing_an_edge(rows: int, columns: int) -> Int[Tensor, "N 4"]:
    """Tiles above, below, left and right of each tile of a grid; -1 outside it."""
    grid = torch.full((rows + 2, columns + 2), -1)
    grid[1:-1, 1:-1] = torch.arange(rows * columns).view(rows, columns)
    sides = grid[:-2, 1:-1], grid[2:, 1:-1], grid[1:-1, :-2], grid[1:-1, 2:]
    return torch.stack([side.flatten() for side in sides], dim=1)
