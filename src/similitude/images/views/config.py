"""What a view of an image is: facts about the images, and the choices of a paper."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from similitude.errors import UserError
from similitude.images.canvases import Canvases
from similitude.sample import View, ViewConfig

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
HueStrength = Annotated[float, Field(ge=0.0, le=0.5)]


@dataclass(frozen=True)
class ImageFacts:
    """Facts about the images of a data set that views depend on.

    Attributes:
        size: Side of a view in pixels, unless a view's config asks for another one.
        mean: Per channel (of three: red, green, blue), of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1]; positive.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"ImageFacts.size is {self.size}; give a side of at least 1 pixel.")
        if min(self.std) <= 0:
            raise UserError(f"ImageFacts.std is {self.std}; every channel must be above 0.")
        if len(self.mean) != len(self.std):
            raise UserError(
                f"ImageFacts has {len(self.mean)} means and {len(self.std)} std; give one of each "
                "for every channel."
            )

    @property
    def channels(self) -> int:
        """Of an image."""
        return len(self.mean)

    @property
    def numbers(self) -> int:
        """Numbers of an image as a network takes it."""
        return self.channels * self.size**2


def told_channels(channels: int) -> str:
    """Images of so many channels, in words."""
    return f"images of {channels} channel{'' if channels == 1 else 's'}"


def _listed(value: Any) -> str:
    return f"[{', '.join(f'{v:g}' for v in value)}]" if isinstance(value, tuple) else f"{value:g}"


def image_views(views: Mapping[str, ViewConfig]) -> dict[str, "ImageViewConfig"]:
    """Those that are of images, e.g. among ``MethodConfig.view_configs``."""
    return {name: view for name, view in views.items() if isinstance(view, ImageViewConfig)}


class ImageViewConfig(ViewConfig):
    """How one view is drawn from an image.

    The operations run in this order: crop, flip, turn, jitter, grey, blur, solarize, normalize. The
    MoCo family flips last, which gives the same pixels: every operation after the crop commutes
    with a mirror. Defaults are those of MoCo v2. Saturation, hue and grey are of red, green and
    blue; of other channels brightness and contrast change all alike.

    Attributes:
        size: Side of the view in pixels; ``None`` takes the side of the image's spec.
        crop_scale: Smallest and largest share of the original's area in the crop.
        crop_ratio: Smallest and largest width / height of the crop, in the original's geometry;
            drawn uniformly in the logarithm.
        crop_attempts: Draws until a box fits into the image; after the last one the central box
            as torchvision's ``RandomResizedCrop`` (10). 0 is BYOL's rule: one draw, with sides
            cut to those of the image.
        interpolation: Of the crop; both filters widen where the crop shrinks.
        flip: Probability of a horizontal mirror.
        turn: Probability of a turn by 90, 180 or 270 degrees, each equally likely; for pictures
            that have no upper side.
        jitter: Strengths of brightness, contrast, saturation and hue (at most 0.5), as
            torchvision's ``ColorJitter``: factors from [max(0, 1 - s), 1 + s], hue from [-s, s]
            turns, in a random order per sample.
        jitter_probability: Probability that a sample is jittered at all.
        grey: Probability of grey.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation, in pixels of the view.
        blur_kernel: ``None``: the Gaussian is cut at four times the largest standard deviation,
            where nothing shows, as PIL's radius means it. A number is the kernel's width as a
            share of the view's side (0.1 in SimCLR and BYOL), rounded to an odd number of pixels.
        solarize: Probability of inverting the pixels at or above the threshold.
        solarize_threshold: In [0, 1].
        normalize: Subtract the spec's mean and divide by its std; SimCLR's code stays in [0, 1].
    """

    kind: Literal["image"] = "image"
    size: Annotated[int, Field(ge=1)] | None = None
    crop_scale: tuple[Positive, Positive] = (0.2, 1.0)
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    crop_attempts: Annotated[int, Field(ge=0, le=1000)] = 10
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: Probability = 0.5
    turn: Probability = 0.0
    jitter: tuple[Strength, Strength, Strength, HueStrength] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: Probability = 0.8
    grey: Probability = 0.2
    blur: Probability = 0.5
    blur_sigma: tuple[Positive, Positive] = (0.1, 2.0)
    blur_kernel: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    solarize: Probability = 0.0
    solarize_threshold: Probability = 0.5
    normalize: bool = True

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "ImageViewConfig":
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"{name} is ({low:g}, {high:g}); give the smaller number first: "
                    f"({high:g}, {low:g})."
                )
        if self.crop_scale[1] > 1:
            raise ValueError(
                f"crop_scale ends at {self.crop_scale[1]:g}; a crop cannot be larger than its "
                "image, so end at 1 or below."
            )
        return self

    @property
    def of_colors(self) -> dict[str, Any]:
        """Fields that need red, green and blue, with the values that do without."""
        fields: dict[str, Any] = {"grey": 0.0} if self.grey > 0 else {}
        if self.jitter_probability > 0 and max(self.jitter[2:]) > 0:
            fields["jitter"] = (*self.jitter[:2], 0.0, 0.0)
        return fields

    def check_channels(self, facts: ImageFacts) -> None:
        """Refuse to change colors where there are none.

        Raises:
            UserError: says what to set.
        """
        if facts.channels != 3 and (fields := self.of_colors):
            settings = " and ".join(f"{name}={_listed(value)}" for name, value in fields.items())
            raise UserError(
                f"a view changes colors, which {told_channels(facts.channels)} do not have: set "
                f"its {settings}"
            )

    def on(self, facts: ImageFacts) -> View[Canvases]:
        """The view of images of which these facts are true."""
        from similitude.images.views.image import ImageView  # what a config is made into

        return ImageView(self, facts)

    def input_side(self, side: int) -> int:
        """Side of what a network is given, in pixels, where images have such a side."""
        return self.size or side

    def small(self, side: int) -> "ImageViewConfig":
        """The same on images of so many pixels a side."""
        return self if self.size is None else self.changed(size=side)

    def blur_radius(self, size: int) -> int:
        """Pixels of the blur's kernel on each side of its center, for a view of side ``size``."""
        if self.blur_kernel is None:
            radius = math.ceil(4 * self.blur_sigma[1])
        else:
            radius = int(size * self.blur_kernel / 2)
        return min(radius, size - 1)  # a reflection reaches at most to the other border
