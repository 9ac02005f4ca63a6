"""Recipes for a few thousand images and a processor without accelerator, one for each method.

The papers' settings are for a million images and weeks. A person with two thousand photos and ten
minutes needs steps before anything else: a narrow ResNet-18 on views of 64 pixels takes ten
thousand of them where the papers' network on 96 takes a hundred. Heads and temperatures are those
of the CIFAR-10 recipes, which are for short runs too. Results: docs/results.md.
"""

from collections.abc import Callable
from typing import Any

from similitude.images.backbones import BackboneConfig
from similitude.images.views import PatchViewConfig, image_views
from similitude.recipes import cifar10
from similitude.recipes.recipe import Recipe

IMAGE_SIZE = 64
BATCH_SIZE = 64
PATCH_SHARE = 1 / 4  # of the image's side, as in the small recipes


def _small(template: Recipe, **optimizer: Any) -> Recipe:
    """The recipe for small photos, with other settings of its optimizer."""
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
        optimizer=template.optimizer.changed(**optimizer),
        data=template.data.changed(image_size=IMAGE_SIZE, canvas_size=round(IMAGE_SIZE * 8 / 7)),
        batch_size=BATCH_SIZE,
        epochs=100,
    )


def simclr() -> Recipe:
    """SimCLR with the weight decay of small data."""
    return _small(cifar10.simclr(), weight_decay=5e-4)


def simclr_v2() -> Recipe:
    """SimCLR v2 with the weight decay of small data."""
    return _small(cifar10.simclr_v2(), weight_decay=5e-4)


def moco_v1() -> Recipe:
    """MoCo v1; the queue is made to fit the images."""
    return _small(cifar10.moco_v1())


def moco_v2() -> Recipe:
    """MoCo v2; the queue is made to fit the images."""
    return _small(cifar10.moco_v2())


def byol() -> Recipe:
    """BYOL."""
    return _small(cifar10.byol())


def simsiam() -> Recipe:
    """SimSiam."""
    return _small(cifar10.simsiam())


def swav() -> Recipe:
    """SwAV."""
    return _small(cifar10.swav())


def dino() -> Recipe:
    """DINO with a ResNet: in so few steps a ViT learns little."""
    return _small(cifar10.dino())


def inst_disc() -> Recipe:
    """InstDisc."""
    return _small(cifar10.inst_disc())


def inva_spread() -> Recipe:
    """InvaSpread."""
    return _small(cifar10.inva_spread())


def diet() -> Recipe:
    """DIET."""
    return _small(cifar10.diet())


def memory_bank() -> Recipe:
    """The memory bank."""
    return _small(cifar10.memory_bank())


def end_to_end() -> Recipe:
    """The end-to-end mechanism."""
    return _small(cifar10.end_to_end())


def barlow_twins() -> Recipe:
    """Barlow Twins."""
    return _small(cifar10.barlow_twins())


def barlow_twins_hsic() -> Recipe:
    """BT-HSIC."""
    return _small(cifar10.barlow_twins_hsic())


def moco_v3() -> Recipe:
    """MoCo v3."""
    return _small(cifar10.moco_v3())


def raft() -> Recipe:
    """RAFT."""
    return _small(cifar10.raft())


def simtriplet() -> Recipe:
    """SimTriplet."""
    return _small(cifar10.simtriplet())


def cpc_v1() -> Recipe:
    """CPC with 5 x 5 patches of a quarter of the side."""
    return _small(cifar10.cpc_v1())


def cpc_v2() -> Recipe:
    """CPC v2 on the patches of CPC v1."""
    return _small(cifar10.cpc_v2())


def cmc() -> Recipe:
    """CMC."""
    return _small(cifar10.cmc())


_RECIPES = (
    *(simclr, simclr_v2, moco_v1, moco_v2, byol, simsiam, swav, dino, inst_disc, inva_spread, cmc),
    *(memory_bank, end_to_end, barlow_twins, barlow_twins_hsic, moco_v3, raft, simtriplet, diet),
    *(cpc_v1, cpc_v2),
)
ALL: dict[str, Callable[[], Recipe]] = {recipe.__name__: recipe for recipe in _RECIPES}
