"""Random and deterministic views of images, on whole batches."""

from similitude.images.canvases import Canvases
from similitude.images.views.config import image_views
from similitude.images.views.contact_sheet import contact_sheet
from similitude.images.views.drawing import ViewParameters
from similitude.images.views.image import ImageFacts, ImageView, ImageViewConfig, evaluation_view
from similitude.images.views.patches import PatchParameters, PatchView, PatchViewConfig, cut_patches
from similitude.sample import MultiView

__all__ = [
    "Canvases",
    "ImageFacts",
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
    "image_views",
]
