"""Random and deterministic views of images, on whole batches."""

from similitude.images.views.contact_sheet import contact_sheet
from similitude.images.views.drawing import ViewParameters
from similitude.images.views.image import (
    ImageSpec,
    ImageView,
    ImageViewConfig,
    MultiView,
    evaluation_view,
)
from similitude.images.views.patches import PatchParameters, PatchView, PatchViewConfig, cut_patches

__all__ = [
    "ImageSpec",
    "ImageView",
    "ImageViewConfig",
    "MultiView",
    "PatchParameters",
    "PatchView",
    "PatchViewConfig",
    "ViewParameters",
    "contact_sheet",
    "cut_patches",
    "evaluation_view",
]
