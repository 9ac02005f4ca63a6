"""Where a vision transformer looks, in pictures: one row of tiles for each image.

M images, H heads, h x w patches, T side of a picture in pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from similitude.report.gallery import Sprite, jpeg_uri
from similitude.report.read import Attention

TILE = 96  # pixels
TILES_BYTES = 900_000
MAX_HEADS = 16
DARKEST = 0.16  # brightness of what is not looked at
# From black over purple and orange to pale yellow: even in lightness, so it reads without color.
HEAT = ((3, 2, 18), (58, 14, 95), (135, 38, 105), (205, 72, 66), (247, 138, 20), (250, 250, 170))


@dataclass(frozen=True)
class AttentionPictures:
    """Tiles of all images: the image, all heads over it, then each head as heat."""

    sprite: Sprite
    names: list[str]
    classes: list[str] | None
    heads: int
    grid: tuple[int, int]  # patches in a column and in a row
    half: float  # smallest share of the patches that holds half of the attention, 0 to 0.5

    def cells(self, row: int) -> range:
        """Cells of the sprite that show one image, from left to right."""
        return range(row * self.sprite.columns, (row + 1) * self.sprite.columns)


def build_attention(attention: Attention) -> AttentionPictures | None:
    """Tiles of every image; None where the maps are not numbers."""
    maps = attention.maps[:, :MAX_HEADS].astype(np.float64)
    if not len(maps) or not np.isfinite(maps).all():
        return None
    columns = 2 + maps.shape[1]
    sheet = Image.new("RGB", (columns * TILE, len(maps) * TILE))
    for row, (pixels, heads) in enumerate(zip(attention.images, maps, strict=True)):
        picture = _resized(Image.fromarray(pixels))
        tiles = [picture, spotlight(picture, heads.mean(axis=0)), *map(heat, heads)]
        for column, tile in enumerate(tiles):
            sheet.paste(tile, (column * TILE, row * TILE))
    return AttentionPictures(
        sprite=Sprite(jpeg_uri(sheet, TILES_BYTES), columns, len(maps), TILE),
        names=attention.names,
        classes=attention.classes,
        heads=attention.maps.shape[1],
        grid=maps.shape[2:],
        half=half_share(maps.mean(axis=1)),
    )


def half_share(maps: Float[np.ndarray, "M h w"]) -> float:
    """The smallest share of the patches that holds half of the attention, mean over images.

    0.5 is an even gaze; the smaller, the more it rests on a few patches.
    """
    flat = -np.sort(-maps.reshape(len(maps), -1), axis=1)
    reached = np.cumsum(flat, axis=1) / np.maximum(flat.sum(axis=1, keepdims=True), 1e-12)
    needed = (reached < 0.5 - 1e-9).sum(axis=1) + 1
    return float(needed.mean() / flat.shape[1])


def heat(weights: Float[np.ndarray, "h w"]) -> Image.Image:
    """One head as a tile: dark is no attention, pale is the most of this map."""
    level = np.asarray(_resized(_relative(weights)), dtype=np.float64) / 255
    places = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(level, places, anchors) for anchors in zip(*HEAT, strict=True)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def spotlight(picture: Image.Image, weights: Float[np.ndarray, "h w"]) -> Image.Image:
    """The picture, the brighter the more it is looked at."""
    level = np.asarray(_resized(_relative(weights)), dtype=np.float64)[..., None] / 255
    # The root, because a few patches hold most of the attention and the rest would be black.
    lit = np.asarray(picture, dtype=np.float64) * (DARKEST + (1 - DARKEST) * np.sqrt(level))
    return Image.fromarray(lit.round().astype(np.uint8))


def _relative(weights: Float[np.ndarray, "h w"]) -> Image.Image:
    """From the least to the most of this map, in gray; an even map is white."""
    low, high = weights.min(), weights.max()
    even = math.isclose(low, high, rel_tol=1e-6)
    level = np.ones_like(weights) if even else (weights - low) / (high - low)
    return Image.fromarray((255 * level).round().astype(np.uint8))


def _resized(picture: Image.Image) -> Image.Image:
    """To the size of a tile; small pictures keep their square pixels."""
    small = picture.mode == "RGB" and picture.width <= TILE // 2 and TILE % picture.width == 0
    method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return picture.resize((TILE, TILE), method)
