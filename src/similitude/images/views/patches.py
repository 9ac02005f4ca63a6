"""An image cut into an overlapping grid of patches, each of which is then changed on its own.

N samples of ch channels, R rows and C columns of the grid, G = R C patches, M = N G, s side of the
image that is cut, p side of a patch, q side of the part of a patch that is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from similitude.devices import constants, moved
from similitude.errors import UserError
from similitude.images.canvases import Canvases
from similitude.images.views.color import blend_, shift_hue_, to_grey
from similitude.images.views.config import (
    HueStrength,
    ImageFacts,
    ImageViewConfig,
    Positive,
    Probability,
    Strength,
)
from similitude.images.views.drawing import ViewParameters
from similitude.images.views.image import ImageView
from similitude.randomness import uniforms
from similitude.sample import Draw, View

_ALL_CHANNELS = -1


class PatchViewConfig(ImageViewConfig):
    """How one view is drawn as a grid of patches (CPC).

    The whole image is cropped, flipped, jittered, greyed and blurred as in an ImageView, then cut;
    the fields that begin with ``patch_`` are drawn for each patch. Defaults are those of CPC v1.

    Attributes:
        crop_scale: Smallest and largest share of the area in the crop, of the largest square of
            the original: (256 / 300)**2 is a square of 256 of an image of short side 300.
        patch_size: Side of a patch in pixels.
        grid: Patches in a row and in a column, evenly spaced from border to border.
        patch_crop: Side of the random part of a patch that is shown, as a share of the patch;
            around it stands a border of the mean color, which hides where patches overlap.
        patch_flip: Probability of a horizontal mirror.
        patch_jitter: Strengths of brightness, contrast, saturation and hue, in this order.
        patch_jitter_probability: Probability that a patch is jittered at all.
        patch_grey: Probability of grey.
        patch_drop: Probability that two of the three color channels become the mean color.
    """

    kind: Literal["patches"] = "patches"  # pyright: ignore[reportIncompatibleVariableOverride]
    crop_scale: tuple[Positive, Positive] = (0.728, 0.728)
    crop_ratio: tuple[Positive, Positive] = (1.0, 1.0)
    jitter_probability: Probability = 0.0
    grey: Probability = 0.0
    blur: Probability = 0.0
    patch_size: int = Field(default=64, ge=1)
    grid: int = Field(default=7, ge=1)
    patch_crop: float = Field(default=0.9375, gt=0, le=1)
    patch_flip: Probability = 0.0
    patch_jitter: tuple[Strength, Strength, Strength, HueStrength] = (0.4, 0.4, 0.4, 0.1)
    patch_jitter_probability: Probability = 0.0
    patch_grey: Probability = 0.0
    patch_drop: Probability = 0.0

    @property
    def of_colors(self) -> dict[str, Any]:
        """See ImageViewConfig; to drop all but one channel is for three too."""
        names = ("patch_grey", "patch_drop")
        fields = super().of_colors | {name: 0.0 for name in names if getattr(self, name) > 0}
        if self.patch_jitter_probability > 0 and max(self.patch_jitter[2:]) > 0:
            fields["patch_jitter"] = (*self.patch_jitter[:2], 0.0, 0.0)
        return fields

    def on(self, facts: ImageFacts) -> View[Canvases]:
        """The view of images of which these facts are true."""
        return PatchView(self, facts)

    def input_side(self, side: int) -> int:
        """Side of a patch, in pixels."""
        return self.patch_size

    def small(self, side: int) -> "PatchViewConfig":
        """Patches of two pixels, in views twice as large as the images."""
        return self.changed(size=2 * side, patch_size=2)

    @property
    def inputs(self) -> int:
        """Patches of an image."""
        return self.grid**2


class PatchParameters(NamedTuple):
    """What was drawn for each image, and for each of its patches; places are in pixels."""

    image: ViewParameters
    top: Int[Tensor, "N G"]  # of the part that is shown, in its patch
    left: Int[Tensor, "N G"]
    flip: Bool[Tensor, "N G"]
    jitter: Bool[Tensor, "N G"]
    brightness: Float[Tensor, "N G"]
    contrast: Float[Tensor, "N G"]
    saturation: Float[Tensor, "N G"]
    hue: Float[Tensor, "N G"]  # in turns
    grey: Bool[Tensor, "N G"]
    kept: Int[Tensor, "N G"]  # the one color channel that is left, or -1: all


def patch_starts(size: int, patch_size: int, grid: int) -> Int[Tensor, " grid"]:
    """First pixel of each of ``grid`` patches along a side of ``size`` pixels.

    Raises:
        UserError: patches are larger than the image, or so many that some would coincide.
    """
    room = size - patch_size
    if room < grid - 1:
        raise UserError(
            f"{grid} patches of {patch_size} px do not fit side by side into {size} px: choose a "
            "smaller patch_size or grid, or larger images"
        )
    # in integers, to the nearest pixel: float rounding must not move a patch
    steps = max(1, grid - 1)
    return (2 * torch.arange(grid) * room + steps) // (2 * steps)


def cut_patches(
    images: Float[Tensor, "N ch H W"], patch_size: int, grid: int
) -> Float[Tensor, "N R C ch p p"]:
    """The patches of images, nothing changed.

    Raises:
        UserError: the grid does not fit into the images.
    """
    rows, columns = (patch_starts(side, patch_size, grid) for side in images.shape[-2:])
    return _windows(images, patch_size, rows[None, :, None], columns[None, None, :])


def _windows(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    """Squares of ``size`` pixels from the places [N or 1, R, C] of each image."""
    windows = images.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    return windows[sample, moved(top, images.device), moved(left, images.device)]


@dataclass(frozen=True)
class PatchView(View[Canvases]):
    """One random view of an image as a grid of patches."""

    config: PatchViewConfig
    facts: ImageFacts

    def __post_init__(self) -> None:
        _ = self.starts  # refuses a grid that does not fit
        self.config.check_channels(self.facts)

    @cached_property
    def _whole(self) -> ImageView:
        return ImageView(self.config.changed(normalize=False), self.facts)

    @property
    def size(self) -> int:
        """Side of the image that is cut, in pixels."""
        return self._whole.size

    @property
    def shown(self) -> int:
        """Side of the part of a patch that is shown, in pixels."""
        return max(1, round(self.config.patch_size * self.config.patch_crop))

    @cached_property
    def starts(self) -> Int[Tensor, " grid"]:
        """First pixel of each patch along a side."""
        return patch_starts(self.size, self.config.patch_size, self.config.grid)

    def draw(self, draw: Draw, rows: Canvases) -> Sequence[PatchParameters]:
        """Draws the parameters of the image and of every patch, for each view."""
        return [self._draw_one(draw._replace(views=[view]), rows) for view in draw.views]

    def apply(
        self, rows: Canvases, choices: Sequence[PatchParameters]
    ) -> Sequence[Float[Tensor, "N R C ch p p"]]:
        """Makes the patches that the parameters describe.

        Args:
            rows: The images.
            choices: Of every image and patch, for each view; on any device.

        Returns:
            One batch for each view: float32, normalized by the facts' mean and std, or in [0, 1] if
            the config says so.
        """
        return [self._make(rows, parameters) for parameters in choices]

    def _draw_one(self, draw: Draw, rows: Canvases) -> PatchParameters:
        seed, epoch, index, (view,) = draw
        aspect, canvas_size = rows.aspect, rows.pixels.shape[-1]
        config, patches = self.config, self.config.grid**2
        image = self._whole.draw(draw, Canvases(rows.pixels))
        image = _in_original(image, seed, epoch, index, view, aspect, canvas_size)
        brightness, contrast, saturation, hue = config.patch_jitter
        chances = {
            "patch flip": config.patch_flip,
            "patch jitter": config.patch_jitter_probability,
            "patch grey": config.patch_grey,
            "patch drop": config.patch_drop,
        }
        ranges = {
            "patch brightness": (max(0.0, 1.0 - brightness), 1.0 + brightness),
            "patch contrast": (max(0.0, 1.0 - contrast), 1.0 + contrast),
            "patch saturation": (max(0.0, 1.0 - saturation), 1.0 + saturation),
            "patch hue": (-hue, hue),
        }
        whole = {
            "patch top": config.patch_size - self.shown + 1,
            "patch left": config.patch_size - self.shown + 1,
            "patch channel": 3,
        }
        names = [*chances, *ranges, *whole]
        draws = uniforms(seed, epoch, index, view, dict.fromkeys(names, patches))
        happens = {name: draws[name] < chance for name, chance in chances.items()}
        value = {name: draws[name] * (high - low) + low for name, (low, high) in ranges.items()}
        number = {name: (draws[name] * count).long() for name, count in whole.items()}
        return PatchParameters(
            image=image,
            top=number["patch top"],
            left=number["patch left"],
            flip=happens["patch flip"],
            jitter=happens["patch jitter"],
            brightness=value["patch brightness"],
            contrast=value["patch contrast"],
            saturation=value["patch saturation"],
            hue=value["patch hue"],
            grey=happens["patch grey"],
            kept=number["patch channel"].where(happens["patch drop"], _ALL_CHANNELS),
        )

    def _make(self, rows: Canvases, parameters: PatchParameters) -> Float[Tensor, "N R C ch p p"]:
        config, grid, size = self.config, self.config.grid, self.config.patch_size
        (images,) = self._whole.apply(rows, parameters.image)
        top = parameters.top.view(-1, grid, grid) + self.starts[:, None]
        left = parameters.left.view(-1, grid, grid) + self.starts
        # The choices stay on the CPU, where deciding on them does not wait for another device.
        chosen = PatchParameters(
            parameters.image, *(field.flatten().cpu() for field in parameters[1:])
        )
        patches = _windows(images, self.shown, top, left).flatten(0, 2)
        if config.patch_flip > 0:
            patches = patches.where(~_beside(chosen.flip, patches), patches.flip(3))
        self._jitter_(patches, chosen)
        if config.patch_grey > 0:
            which = moved(chosen.grey.nonzero().squeeze(1), patches.device)
            grey = to_grey(patches.index_select(0, which))
            patches.index_copy_(0, which, grey[:, None].expand(-1, 3, -1, -1))
        mean = constants(self.facts.mean, patches)[:, None, None]
        if config.patch_drop > 0:
            kept = _beside(chosen.kept, patches)
            channel = torch.arange(3, device=patches.device)[:, None, None]
            stays = (kept == _ALL_CHANNELS) | (kept == channel)
            patches = patches.where(stays, mean)
        out = mean.expand(len(patches), -1, size, size).clone()
        border = slice((size - self.shown) // 2, (size - self.shown) // 2 + self.shown)
        out[:, :, border, border] = patches
        if config.normalize:
            out.sub_(mean).div_(constants(self.facts.std, out)[:, None, None])
        return out.unflatten(0, (-1, grid, grid))

    def _jitter_(self, patches: Float[Tensor, "M ch q q"], chosen: PatchParameters) -> None:
        if self.config.patch_jitter_probability == 0:
            return
        chance = chosen.jitter.nonzero().squeeze(1)
        which = moved(chance, patches.device)
        some = patches.index_select(0, which)
        brightness, contrast, saturation, hue = (
            moved(field[chance], patches.device)
            for field in (chosen.brightness, chosen.contrast, chosen.saturation, chosen.hue)
        )
        none = torch.zeros_like(hue)
        blend_(some, brightness, none, none)
        blend_(some, contrast, none, 1.0 - contrast)
        if some.shape[1] == 3:
            blend_(some, saturation, 1.0 - saturation, none)
            shift_hue_(some, hue)
        patches.index_copy_(0, which, some)


def _beside(values: Tensor, patches: Tensor) -> Tensor:
    return moved(values, patches.device)[:, None, None, None]


def _in_original(
    square: ViewParameters,
    seed: int,
    epoch: int,
    index: Int[Tensor, " N"],
    view: int,
    aspect: Float[Tensor, " N"],
    canvas_size: int,
) -> ViewParameters:
    """Boxes drawn in a square of the original's short side, as pixels of its squashed canvas."""
    aspect = aspect.double()
    height = (square.height * aspect.clamp(max=1.0)).round().clamp(min=1.0)
    width = (square.width / aspect.clamp(min=1.0)).round().clamp(min=1.0)
    place = uniforms(seed, epoch, index, view, {"crop place": 2})["crop place"].double()
    top = (place[:, 0] * (canvas_size - height + 1)).floor()
    left = (place[:, 1] * (canvas_size - width + 1)).floor()
    return square._replace(
        top=top.long(), left=left.long(), height=height.long(), width=width.long()
    )
