"""Recipes for a few thousand images and a processor without accelerator, of those of CIFAR-10.

The papers' settings are for a million images and weeks. A person with two thousand photos and ten
minutes needs steps before anything else: a narrow ResNet-18 on views of 64 pixels takes ten
thousand of them where the papers' network on 96 takes a hundred. Heads and temperatures are those
of the CIFAR-10 recipes, which are for short runs too. Results: docs/results.md.
"""

from typing import Any

from similitude.images.backbones import BackboneConfig
from similitude.images.views import PatchViewConfig, image_views
from similitude.recipes.recipe import Recipe

IMAGE_SIZE = 64
BATCH_SIZE = 64
PATCH_SHARE = 1 / 4  # of the image's side, as in the small recipes


# Settings of an optimizer that are others than in the method's CIFAR-10 recipe.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "simclr": {"weight_decay": 5e-4},  # few images want more
    "simclr_v2": {"weight_decay": 5e-4},
}


def for_small_photos(template: Recipe) -> Recipe:
    """A CIFAR-10 recipe made to fit small photos."""
    # CPC's patches must not share statistics
    options = {
        k: v for k, v in getattr(template.backbone, "options", {}).items() if k == "norm_layer"
    }
    views = {}
    for name, view in image_views(template.method.view_configs).items():
        update: dict[str, Any] = {"size": IMAGE_SIZE // 2 if name == "local_view" else None}
        if isinstance(view, PatchViewConfig):
            update["patch_size"] = round(PATCH_SHARE * IMAGE_SIZE)
        views[name] = view.changed(**update)
    return template.changed(
        method=template.method.changed(**views),
        backbone=BackboneConfig(base_width=16, zero_init_last=False, options=options),
        optimizer=template.optimizer.changed(**OPTIMIZERS.get(template.method.name, {})),
        data=template.data.changed(image_size=IMAGE_SIZE, canvas_size=round(IMAGE_SIZE * 8 / 7)),
        batch_size=BATCH_SIZE,
        epochs=100,
    )
