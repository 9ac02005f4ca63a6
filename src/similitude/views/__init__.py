"""Random and deterministic views of images, on whole batches."""

from similitude.views.contact_sheet import contact_sheet
from similitude.views.drawing import ViewParameters
from similitude.views.image import (
    ImageSpec,
    ImageView,
    ImageViewConfig,
    MultiView,
    evaluation_view,
)

__all__ = [
    "ImageSpec",
    "ImageView",
    "ImageViewConfig",
    "MultiView",
    "ViewParameters",
    "contact_sheet",
    "evaluation_view",
]
