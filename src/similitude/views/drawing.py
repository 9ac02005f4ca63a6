"""The random choices of a view: a pure function of (seed, epoch, sample, view number).

Letters: N samples.
"""

import itertools
import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from similitude.randomness import uniforms
from similitude.views.config import ImageViewConfig

# Row k: the k-th order of brightness 0, contrast 1, saturation 2, hue 3.
JITTER_ORDERS = tuple(itertools.permutations(range(4)))


class ViewParameters(NamedTuple):
    """What was drawn for each sample; boxes are in pixels of the canvas."""

    top: Int[Tensor, " N"]
    left: Int[Tensor, " N"]
    height: Int[Tensor, " N"]
    width: Int[Tensor, " N"]
    flip: Bool[Tensor, " N"]
    jitter: Bool[Tensor, " N"]
    jitter_order: Int[Tensor, " N"]  # row of JITTER_ORDERS
    brightness: Float[Tensor, " N"]
    contrast: Float[Tensor, " N"]
    saturation: Float[Tensor, " N"]
    hue: Float[Tensor, " N"]  # in turns
    grey: Bool[Tensor, " N"]
    blur: Bool[Tensor, " N"]
    sigma: Float[Tensor, " N"]  # in pixels of the view
    solarize: Bool[Tensor, " N"]

    def select(self, index: Int[Tensor, " M"] | slice) -> "ViewParameters":
        """The parameters of the samples at ``index``."""
        return ViewParameters(*(field[index] for field in self))


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
    aspect, place = aspect.double(), place.double()
    area = area.double().mul_(scale_high - scale_low).add_(scale_low)
    ratio = log_ratio.double().mul_(log_high - log_low).add_(log_low).exp_()
    ratio.div_(aspect[:, None])  # now that of the box on the canvas
    width = (area * ratio).sqrt_().mul_(size).round_()
    height = area.div_(ratio).sqrt_().mul_(size).round_()
    if config.crop_attempts == 0:
        width, height = width[:, 0].clamp_(1, size), height[:, 0].clamp_(1, size)
        found = torch.ones_like(width, dtype=torch.bool)
    else:
        valid = (width > 0) & (width <= size) & (height > 0) & (height <= size)
        first = valid.to(torch.uint8).argmax(dim=1, keepdim=True)
        found = valid.gather(1, first).squeeze(1)
        width, height = width.gather(1, first).squeeze(1), height.gather(1, first).squeeze(1)
        # no box fitted: the largest central one whose ratio is allowed
        ratio_low, ratio_high = config.crop_ratio
        widest = (size * ratio_high / aspect).round_().clamp_(1, size)
        highest = (size * aspect / ratio_low).round_().clamp_(1, size)
        width = torch.where(found, width, torch.where(aspect > ratio_high, widest, size))
        height = torch.where(found, height, torch.where(aspect < ratio_low, highest, size))
    room_y, room_x = size - height, size - width
    top = torch.where(found, (place[:, 0] * (room_y + 1)).floor_(), (room_y / 2).floor_())
    left = torch.where(found, (place[:, 1] * (room_x + 1)).floor_(), (room_x / 2).floor_())
    return top.long(), left.long(), height.long(), width.long()


def draw_parameters(
    config: ImageViewConfig,
    *,
    seed: int,
    epoch: int,
    index: Int[Tensor, " N"],
    view: int,
    aspect: Float[Tensor, " N"],
    canvas_size: int,
) -> ViewParameters:
    """Draws every random choice of a view.

    Args:
        config: Ranges and probabilities.
        seed: Of the run.
        epoch: Number of the pass over the data.
        index: Position of each sample in the data set, shape [N].
        view: Number of the view within the sample.
        aspect: Width / height of each original, shape [N], positive.
        canvas_size: Side of the square canvases, in pixels.

    Returns:
        Per-sample tensors of shape [N] on the device of ``index``.
    """
    attempts = max(1, config.crop_attempts)
    brightness, contrast, saturation, hue = config.jitter
    chances = {
        "flip": config.flip,
        "jitter": config.jitter_probability,
        "grey": config.grey,
        "blur": config.blur,
        "solarize": config.solarize,
    }
    ranges = {
        "brightness": (max(0.0, 1.0 - brightness), 1.0 + brightness),
        "contrast": (max(0.0, 1.0 - contrast), 1.0 + contrast),
        "saturation": (max(0.0, 1.0 - saturation), 1.0 + saturation),
        "hue": (-hue, hue),
        "blur sigma": config.blur_sigma,
    }
    crop = {"crop area": attempts, "crop ratio": attempts, "crop place": 2}
    draws = uniforms(
        seed, epoch, index, view, crop | dict.fromkeys([*chances, *ranges, "jitter order"], 1)
    )
    top, left, height, width = _crop_boxes(
        config, draws["crop area"], draws["crop ratio"], draws["crop place"], aspect, canvas_size
    )
    happens = {name: draws[name][:, 0] < chance for name, chance in chances.items()}
    value = {
        name: draws[name][:, 0].mul(high - low).add_(low) for name, (low, high) in ranges.items()
    }
    return ViewParameters(
        top=top,
        left=left,
        height=height,
        width=width,
        flip=happens["flip"],
        jitter=happens["jitter"],
        jitter_order=draws["jitter order"][:, 0].mul(len(JITTER_ORDERS)).long(),
        brightness=value["brightness"],
        contrast=value["contrast"],
        saturation=value["saturation"],
        hue=value["hue"],
        grey=happens["grey"],
        blur=happens["blur"],
        sigma=value["blur sigma"],
        solarize=happens["solarize"],
    )
