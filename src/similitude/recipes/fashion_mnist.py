"""Recipes for Fashion-MNIST: 60,000 grey images of clothes, 28 x 28."""

from similitude.images.backbones import BackboneConfig
from similitude.images.config import ImageData
from similitude.images.views import ImageViewConfig
from similitude.methods import SimCLRConfig
from similitude.recipes.recipe import OptimizerConfig, Recipe


def quickstart() -> Recipe:
    """SimCLR for two CPU cores; the score table and its command are in docs/results.md.

    Clothes differ by their outline, so crops stay large, while brightness, contrast, blur and
    solarization take away the prints and shades in which clothes of one kind differ. Views of 20
    pixels instead of 28 show the crops at about the size that whole images have at evaluation, and
    halve the arithmetic.
    """
    view = ImageViewConfig(
        size=20,
        crop_scale=(0.4, 1.0),
        jitter=(0.8, 0.8, 0.0, 0.0),  # saturation and hue do not exist in grey images
        jitter_probability=0.8,
        grey=0.0,
        blur=0.3,
        blur_sigma=(0.1, 1.5),
        solarize=0.3,
    )
    return Recipe(
        method=SimCLRConfig(view=view, projector_hidden=512, temperature=0.4),
        backbone=BackboneConfig(name="resnet18", stem="small", base_width=16),
        optimizer=OptimizerConfig(base_lr=0.4, weight_decay=1e-4, warmup_epochs=0.2),
        epochs=5,
        batch_size=128,
        data=ImageData(image_size=28, mean=(0.286, 0.286, 0.286), std=(0.353, 0.353, 0.353)),
    )
