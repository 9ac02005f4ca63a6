"""What a recipe decides of images: their sizes, and which values are black and white."""

import math
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator

from similitude.images.canvases import Canvases
from similitude.images.views.config import ImageFacts, ImageViewConfig
from similitude.images.views.operations import OPERATIONS
from similitude.sample import DataConfig, ViewConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL_IMAGE = 64  # pixels: up to here the papers take the small-image stem and views without blur

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def over_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Numbers of red, green and blue for other channels: repeated, or the mean for one.

    As timm makes the first layer of a published network take other channels.
    """
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))


class ImageData(DataConfig):
    """Sizes in pixels, what of a pixel is kept, and what black, white and gray are."""

    kind: Literal["image"] = "image"
    image_size: int = Field(ge=4)  # at evaluation, and of views without a size of their own
    # Side of the square tiles, in pixels of the originals, into which every image is cut before
    # anything else; each tile is a sample. None leaves images whole.
    tile_size: int | None = Field(default=None, ge=1)
    canvas_size: int | None = Field(default=None, ge=4)  # short side kept after decoding
    # Values of deep pictures (16 bits, floats) that are black and white; None: there were none.
    value_range: tuple[float, float] | None = None
    # Three are red, green and blue, of whatever a file holds; 1 is gray, and any other number is
    # what the files themselves have.
    channels: int = Field(default=3, ge=1, le=1024)
    depth: Literal[8, 16] = 8  # bits that are kept of a pixel
    # Of pixels in [0, 1], per channel; those of three are repeated for more, and averaged for one.
    mean: tuple[Share, ...] = Field(default=IMAGENET_MEAN, validate_default=True)
    std: tuple[Positive, ...] = Field(default=IMAGENET_STD, validate_default=True)

    @field_validator("mean", "std")
    @classmethod
    def _one_for_each_channel(cls, values: tuple[float, ...], info: Any) -> tuple[float, ...]:
        channels = info.data.get("channels", 3)
        if len(values) == 3 != channels:
            return over_channels(values, channels)
        if len(values) != channels:
            raise ValueError(f"give one number for each of {channels} channels")
        return values

    @field_validator("value_range")
    @classmethod
    def _two_values(cls, values: tuple[float, float] | None) -> tuple[float, float] | None:
        if values is not None and not (all(map(math.isfinite, values)) and values[0] != values[1]):
            raise ValueError("black and white must be two different numbers")
        return values

    @property
    def is_small(self) -> bool:  # type: ignore[override]
        """Whether the images are as small as those of CIFAR-10."""
        return self.image_size <= SMALL_IMAGE

    @property
    def are_pictures(self) -> bool:  # type: ignore[override]
        return (self.channels, self.depth) == (3, 8)

    @property
    def told_cut(self) -> str | None:  # type: ignore[override]
        if self.tile_size is None:
            return None
        return (
            f"the run was trained on tiles of {self.tile_size} px, and this uses whole images: cut "
            "them into files of that size to score or embed tiles"
        )

    def facts(self, views: Collection[ViewConfig]) -> ImageFacts:
        """Size, mean and std of what a network is given.

        A method whose views stay in [0, 1] (SimCLR's paper) is evaluated on such images too.
        """
        ours = [view for view in views if isinstance(view, ImageViewConfig)]
        if ours and not any(view.normalize for view in ours):
            return ImageFacts(self.image_size, (0.0,) * self.channels, (1.0,) * self.channels)
        return ImageFacts(self.image_size, self.mean, self.std)

    def noise(self, number: int) -> Canvases:
        side = self.canvas_size or self.image_size
        shape = (number, self.channels, side, side)
        return Canvases(torch.randint(0, 256, shape, dtype=torch.uint8))

    def view_cost(self, views: Sequence[Any]) -> float:
        """Pixels of the views, and of the canvas, which is read once for each view, as bytes."""
        side = self.canvas_size or self.image_size
        return sum(view[0].numel() / 3 + side**2 / 4 for view in views)

    def training_view(self, views: Collection[ViewConfig]) -> ImageViewConfig:
        """The largest crop and its mirror, without anything else (SimCLR v2, App. A)."""
        ours = [view for view in views if isinstance(view, ImageViewConfig)]
        usual = ImageViewConfig(crop_scale=(0.08, 1))
        view = max(ours, key=lambda v: v.crop_scale[1], default=usual)  # of crops the global ones
        crop = {f: getattr(view, f) for f in ImageViewConfig.model_fields if f != "kind"}
        off = dict.fromkeys(("jitter_probability", *(o.name for o in OPERATIONS)), 0.0)
        return ImageViewConfig.model_validate(crop | off)

    def mild_view(self, views: Collection[ViewConfig]) -> ImageViewConfig:
        """Most of the image, as CLIP takes it (Radford et al. 2021, Sec. 2.4)."""
        return self.training_view(views).changed(crop_scale=(0.6, 1.0))

    def serving(self, others: Sequence["ImageData"]) -> "ImageData":
        """The largest canvases of all; where none has a size, the images' own."""
        sizes = [config.canvas_size or 0 for config in (self, *others)]
        return self.changed(canvas_size=max(sizes) or None)
