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


class ImageData(DataConfig):
    """Sizes in pixels, and what black, white and gray are."""

    kind: Literal["image"] = "image"
    image_size: int = Field(ge=4)  # at evaluation, and of views without a size of their own
    # Side of the square tiles, in pixels of the originals, into which every image is cut before
    # anything else; each tile is a sample. None leaves images whole.
    tile_size: int | None = Field(default=None, ge=1)
    canvas_size: int | None = Field(default=None, ge=4)  # short side kept after decoding
    # Values of deep pictures (16 bits, floats) that are black and white; None: there were none.
    value_range: tuple[float, float] | None = None
    mean: tuple[Share, Share, Share] = IMAGENET_MEAN  # of pixels in [0, 1], per channel
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD

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
            return ImageFacts(self.image_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        return ImageFacts(self.image_size, self.mean, self.std)

    def noise(self, number: int) -> Canvases:
        side = self.canvas_size or self.image_size
        return Canvases(torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8))

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
