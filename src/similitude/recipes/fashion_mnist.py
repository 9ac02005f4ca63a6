"""Recipes for Fashion-MNIST: 60,000 grey images of clothes, 28 x 28."""

from similitude.backbones import BackboneConfig
from similitude.methods import SimCLRConfig
from similitude.recipes.recipe import OptimizerConfig, Recipe
from similitude.views import ImageViewConfig


def quickstart() -> Recipe:
    """SimCLR on two CPU cores in minutes; results in docs/results.md."""
    view = ImageViewConfig(
        crop_scale=(0.5, 1.0),
        jitter=(0.4, 0.4, 0.0, 0.0),  # saturation and hue do not exist in grey images
        jitter_probability=0.5,
        grey=0.0,
        blur=0.0,
        flip=0.5,
    )
    return Recipe(
        method=SimCLRConfig(view=view, projector_hidden=512, temperature=0.2),
        backbone=BackboneConfig(name="resnet18", stem="small", base_width=16),
        optimizer=OptimizerConfig(base_lr=0.2, weight_decay=1e-4, warmup_epochs=0.2),
        epochs=3,
        batch_size=256,
        image_size=28,
        mean=(0.286, 0.286, 0.286),
        std=(0.353, 0.353, 0.353),
    )
