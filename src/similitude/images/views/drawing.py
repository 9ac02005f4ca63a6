"""The random choices of views: a pure function of (seed, epoch, sample, view number).

Letters: N samples, V views, M = V N: all samples of the first view, then those of the next.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from similitude.images.views.config import ImageViewConfig
from similitude.images.views.operations import OPERATIONS
from similitude.randomness import uniforms

# Row k: the k-th order of brightness 0, contrast 1, saturation 2, hue 3.
JITTER_ORDERS = tuple(itertools.permutations(range(4)))


class ViewParameters(NamedTuple):
    """What was drawn for each sample and view; boxes are in pixels of the canvas."""

    top: Int[Tensor, " M"]
    left: Int[Tensor, " M"]
    height: Int[Tensor, " M"]
    width: Int[Tensor, " M"]
    flip: Bool[Tensor, " M"]
    quarter_turns: Int[Tensor, " M"]  # 0..3, counterclockwise
    jitter: Bool[Tensor, " M"]
    jitter_order: Int[Tensor, " M"]  # row of JITTER_ORDERS
    brightness: Float[Tensor, " M"]
    contrast: Float[Tensor, " M"]
    saturation: Float[Tensor, " M"]
    hue: Float[Tensor, " M"]  # in turns
    # of each operation after the jitter: whether it happens, and what else it draws, by name
    operations: dict[str, Shaped[Tensor, " M"]]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "ViewParameters":
        """The parameters with all their tensors changed in the same way."""
        *fields, operations = self
        changed = {name: change(tensor) for name, tensor in operations.items()}
        return ViewParameters._make([*map(change, fields), changed])

    def select(self, index: Int[Tensor, " M"] | slice) -> "ViewParameters":
        """The parameters of the rows at ``index``."""
        return self.mapped(lambda tensor: tensor[index])


def _crop_boxes(
    config: ImageViewConfig,
    area: Float[Tensor, "N attempts"],
    log_ratio: Float[Tensor, "N attempts"],
    place: Float[Tensor, "N 2"],
    aspect: Float[Tensor, " N"],
    canvas_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Boxes (top, left, height, width) as torchvision's ``RandomResizedCrop.get_params``.

    The canvas is the original squashed to a square of side S, so a box of area share a and ratio
    r in the original is sqrt(a r / aspect) S wide and sqrt(a aspect / r) S high here. Whether it
    fits does not depend on the units. In float64: a last-bit difference must not move a box.
    """
    size = canvas_size
    log_low, log_high = (math.log(ratio) for ratio in config.crop_ratio)
    scale_low, scale_high = config.crop_scale
    aspect, place = aspect.double(), place.double().t()
    area = area.double().mul_(scale_high - scale_low).add_(scale_low)
    ratio = log_ratio.double().mul_(log_high - log_low).add_(log_low).exp_()
    ratio.div_(aspect[:, None])  # now that of the box on the canvas
    # first heights, then widths
    sides = torch.stack([area / ratio, area * ratio]).sqrt_().mul_(size).round_()
    if config.crop_attempts == 0:
        sides = sides[:, :, 0].clamp_(1, size)
        found = torch.ones_like(aspect, dtype=torch.bool)
    else:
        valid = ((sides > 0) & (sides <= size)).all(dim=0)
        first = valid.to(torch.uint8).argmax(dim=1, keepdim=True)
        found = valid.gather(1, first).squeeze(1)
        sides = sides.gather(2, first.expand(2, -1, -1)).squeeze(2)
        # no box fitted: the largest central one whose ratio is allowed
        ratio_low, ratio_high = config.crop_ratio
        largest = torch.stack([size * aspect / ratio_low, size * ratio_high / aspect])
        sides = torch.where(found, sides, largest.round_().clamp_(1, size))
    room = size - sides
    start = torch.where(found, place * (room + 1), room / 2).floor_()
    top, left, height, width = torch.cat([start, sides]).long()
    return top, left, height, width


def _quarter_turns(draw: Float[Tensor, " M"], chance: float) -> Int[Tensor, " M"]:
    """None, or one, two or three with equal chances, counterclockwise."""
    return torch.where(draw < chance, 1 + (draw * (3 / chance)).long().clamp_(max=2), 0)


def _rows(draws: Mapping[str, Tensor], names: Iterable[str]) -> Float[Tensor, "names N"]:
    return torch.stack([draws[name][:, 0] for name in names])


def draw_parameters(
    config: ImageViewConfig,
    *,
    seed: int,
    epoch: int,
    index: Int[Tensor, " N"],
    view: int | Sequence[int],
    aspect: Float[Tensor, " N"],
    canvas_size: int,
) -> ViewParameters:
    """Draws every random choice of a view, or of several.

    Args:
        config: Ranges and probabilities.
        seed: Of the run.
        epoch: Number of the pass over the data.
        index: Position of each sample in the data set, shape [N].
        view: Number of the view within the sample, or of each of V views.
        aspect: Width / height of each original, shape [N], positive.
        canvas_size: Side of the square canvases, in pixels.

    Returns:
        Tensors of shape [M] on the device of ``index``.
    """
    attempts = max(1, config.crop_attempts)
    chances = {
        "flip": config.flip,
        "jitter": config.jitter_probability,
        **{operation.name: getattr(config, operation.name) for operation in OPERATIONS},
    }
    if not isinstance(view, int):
        aspect = aspect.repeat(len(view))
    *factors, turn = config.jitter
    ranges = {
        name: (max(0.0, 1.0 - strength), 1.0 + strength)
        for name, strength in zip(("brightness", "contrast", "saturation"), factors, strict=True)
    }
    ranges["hue"] = (-turn, turn)
    for operation in OPERATIONS:
        ranges |= {name: getattr(config, field) for name, field in operation.ranges.items()}
    crop = {"crop area": attempts, "crop ratio": attempts, "crop place": 2}
    singles = [*chances, *ranges, "jitter order", *(["turn"] if config.turn > 0 else [])]
    draws = uniforms(seed, epoch, index, view, crop | dict.fromkeys(singles, 1))
    top, left, height, width = _crop_boxes(
        config, draws["crop area"], draws["crop ratio"], draws["crop place"], aspect, canvas_size
    )
    # all chances and all ranges at once: an operation on so few numbers takes as long for one
    chance = index.new_tensor(list(chances.values()), dtype=torch.float32)[:, None]
    happens = _rows(draws, chances) < chance
    low, high = index.new_tensor(list(ranges.values()), dtype=torch.float64).t()[:, :, None]
    value = _rows(draws, ranges).mul_((high - low).float()).add_(low.float())
    flip, jitter, *further = happens
    brightness, contrast, saturation, hue, *values = value
    operations = dict(zip([*chances][2:], further, strict=True))
    operations |= zip([*ranges][4:], values, strict=True)
    return ViewParameters(
        top=top,
        left=left,
        height=height,
        width=width,
        flip=flip,
        quarter_turns=_quarter_turns(draws["turn"][:, 0], config.turn)
        if config.turn > 0
        else torch.zeros_like(top),
        jitter=jitter,
        jitter_order=draws["jitter order"][:, 0].mul(len(JITTER_ORDERS)).long(),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        operations=operations,
    )
