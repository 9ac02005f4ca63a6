"""A picture of what a method learns to make the same: originals beside their random views.

Letters: N samples, C channels, S side of a canvas, s side of a view; of patches, R rows, C
columns, side p, ch channels.
"""

from typing import Any

import torch
from jaxtyping import Float, UInt, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from similitude.errors import UserError
from similitude.images.canvases import Canvases
from similitude.images.views.config import ImageFacts
from similitude.images.views.image import ImageView
from similitude.images.views.patches import PatchView
from similitude.sample import MultiView, View

_BACKGROUND = (255, 255, 255)
_INK = (40, 44, 52)
_FAINT = (140, 146, 156)
_CELL = 96  # pixels that a cell is close to where the images are smaller
_LARGEST_CELL = 128
_GAP = 4
_GROUP_GAP = 20
_MARGIN = 20
_CAPTION = 26
_FONT_SIZE = 13


def _cell_side(size: int) -> int:
    # a whole multiple keeps the pixels of tiny images square and equal
    return size * max(1, round(_CELL / size)) if size < _LARGEST_CELL else _LARGEST_CELL


def as_shown(pixels: UInt[Tensor, "*N C s s"]) -> UInt8[Tensor, "*N 3 s s"]:
    """What a picture shows of pixels: 8 bits of the first three channels, of fewer the first."""
    if pixels.shape[-3] != 3:
        pixels = pixels.narrow(-3, 0, 3 if pixels.shape[-3] > 3 else 1)
        pixels = pixels.expand(*pixels.shape[:-3], 3, -1, -1)
    if pixels.dtype != torch.uint8:
        pixels = (pixels.float() * (255 / torch.iinfo(pixels.dtype).max)).round().to(torch.uint8)
    return pixels


def told_shown(channels: int) -> str:
    """Which of so many channels a picture shows, in words; empty where it shows all."""
    return "" if channels in (1, 3) else "channels 1-3" if channels > 3 else "channel 1"


def _picture(pixels: UInt[Tensor, "C s s"], width: int, height: int) -> Image.Image:
    picture = Image.fromarray(as_shown(pixels).permute(1, 2, 0).contiguous().numpy())
    # nearest is faithful where whole pixels repeat; anything else would alias
    repeats = width % picture.width == 0 and height % picture.height == 0
    method = Image.Resampling.NEAREST if repeats else Image.Resampling.LANCZOS
    return picture.resize((width, height), method)


def _original(pixels: UInt[Tensor, "C S S"], aspect: float, cell: int) -> Image.Image:
    """The canvas in the shape of its original, centered in a cell."""
    width = max(1, round(cell * min(1.0, aspect)))
    height = max(1, round(cell / max(1.0, aspect)))
    out = Image.new("RGB", (cell, cell), _BACKGROUND)
    out.paste(_picture(pixels, width, height), ((cell - width) // 2, (cell - height) // 2))
    return out


def _to_pixels(
    images: Float[Tensor, "N *grid C s s"], normalized: bool, image: ImageFacts
) -> UInt8[Tensor, "N *grid C s s"]:
    images = images.cpu()
    if normalized:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (image.mean, image.std))
        images = images * std + mean
    return (images * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)


def _is_normalized(view: View[Any]) -> bool:
    """Whether it takes off mean and std; one of a user's own is drawn as if it did."""
    return not isinstance(view, ImageView | PatchView) or view.config.normalize


def _side_by_side(patches: UInt8[Tensor, "N R C ch p p"]) -> UInt8[Tensor, "N ch H W"]:
    """A grid of patches as one picture, with white lines between them."""
    n, rows, columns, channels, size, _ = patches.shape
    gap = max(1, size // 8)
    step = size + gap
    out = patches.new_full((n, channels, rows * step - gap, columns * step - gap), _BACKGROUND[0])
    for row in range(rows):
        for column in range(columns):
            top, left = row * step, column * step
            out[:, :, top : top + size, left : left + size] = patches[:, row, column]
    return out


def contact_sheet(
    images: Canvases,
    multi_view: MultiView,
    facts: ImageFacts,
    *,
    rows: int = 8,
    columns_per_view: int = 4,
    seed: int = 0,
) -> Image.Image:
    """Draws the first samples, each with its views in several epochs to the right.

    Args:
        images: The samples.
        multi_view: The views of a method.
        facts: Mean and std that the views were normalized with, and the side of a view.
        rows: Samples to show; fewer if there are fewer.
        columns_per_view: Epochs to show of each view.
        seed: Of the run.

    Returns:
        An RGB picture.

    Raises:
        UserError: If there is nothing to show.
    """
    if len(images) == 0 or rows < 1 or columns_per_view < 1:
        raise UserError(
            f"A contact sheet of {len(images)} images, {rows} rows and {columns_per_view} "
            "columns per view is empty; give at least one of each."
        )
    images = Canvases(images.pixels[:rows], images.aspect[:rows])
    rows = len(images)
    index = torch.arange(rows)
    epochs = [
        multi_view(images, index, seed=seed, epoch=epoch) for epoch in range(columns_per_view)
    ]

    cell = _cell_side(facts.size)
    step = cell + _GAP
    group = columns_per_view * step - _GAP
    first = _MARGIN + cell + _GROUP_GAP
    lefts = [first + number * (group + _GROUP_GAP) for number in range(len(multi_view))]
    top = _MARGIN + _CAPTION
    size = (lefts[-1] + group + _MARGIN, top + rows * step - _GAP + _MARGIN)
    sheet = Image.new("RGB", size, _BACKGROUND)

    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    draw.text((_MARGIN, _MARGIN), "original", fill=_INK, font=font)
    shown = told_shown(images.pixels.shape[1])
    draw.text((_MARGIN, _MARGIN - _FONT_SIZE - 3), shown, fill=_FAINT, font=font)
    for number, left in enumerate(lefts):
        title = f"view {number + 1}"
        draw.text((left, _MARGIN), title, fill=_INK, font=font)
        if columns_per_view > 1:
            after = left + draw.textlength(title + "  ", font=font)
            text = f"epochs 1-{columns_per_view}"
            draw.text((after, _MARGIN), text, fill=_FAINT, font=font)

    for row, canvas in enumerate(images.pixels.cpu()):
        sheet.paste(_original(canvas, float(images.aspect[row]), cell), (_MARGIN, top + row * step))
    for number, (view, left) in enumerate(zip(multi_view.views, lefts, strict=True)):
        for column, views in enumerate(epochs):
            pixels = _to_pixels(views[number], _is_normalized(view), facts)
            if pixels.ndim > 4:
                pixels = _side_by_side(pixels)
            for row in range(rows):
                corner = (left + column * step, top + row * step)
                sheet.paste(_picture(pixels[row], cell, cell), corner)
    return sheet
