"""The papers' recipes for ImageNet and ResNet-50: views, heads, optimizer, schedule as published.

None of them has been run here to the end (they take days on several GPUs); each function names the
published linear accuracy it should reach.
"""

from similitude.backbones import BackboneConfig
from similitude.methods import (
    BYOLConfig,
    MethodConfig,
    MoCoV1Config,
    MoCoV2Config,
    SimCLRConfig,
    SimCLRv2Config,
    SimSiamConfig,
)
from similitude.recipes.recipe import OptimizerConfig, Recipe


def _recipe(
    method: MethodConfig, optimizer: OptimizerConfig, *, epochs: int, batch_size: int
) -> Recipe:
    return Recipe(
        method=method,
        backbone=BackboneConfig(name="resnet50"),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        image_size=224,
    )


def simclr() -> Recipe:
    """SimCLR, 1,000 epochs at batch 4,096: 69.3 linear (Tab. 6 and App. B.6)."""
    optimizer = OptimizerConfig(
        name="lars",
        base_lr=0.3,
        weight_decay=1e-6,
        warmup_epochs=10,
        lars_momentum="classic",
    )
    return _recipe(SimCLRConfig(), optimizer, epochs=1000, batch_size=4096)


def simclr_v2() -> Recipe:
    """SimCLR v2, 800 epochs at batch 4,096: 71.7 linear (Tab. 1 and App. A)."""
    optimizer = OptimizerConfig(
        name="lars",
        base_lr=0.1 * 4096**0.5 * 256 / 4096,  # 0.1 sqrt(batch size) = 6.4
        weight_decay=1e-4,
        warmup_epochs=40,
        lars_momentum="classic",
    )
    return _recipe(SimCLRv2Config(), optimizer, epochs=800, batch_size=4096)


def moco_v1() -> Recipe:
    """MoCo v1, 200 epochs at batch 256: 60.6 linear."""
    optimizer = OptimizerConfig(base_lr=0.03, schedule="step", per="epoch")
    return _recipe(MoCoV1Config(), optimizer, epochs=200, batch_size=256)


def moco_v2() -> Recipe:
    """MoCo v2, 200 epochs at batch 256: 67.5 linear."""
    optimizer = OptimizerConfig(base_lr=0.03, per="epoch")
    return _recipe(MoCoV2Config(), optimizer, epochs=200, batch_size=256)


def byol() -> Recipe:
    """BYOL, 1,000 epochs at batch 4,096: 74.3 linear."""
    optimizer = OptimizerConfig(name="lars", base_lr=0.2, weight_decay=1.5e-6, warmup_epochs=10)
    return _recipe(BYOLConfig(), optimizer, epochs=1000, batch_size=4096)


def simsiam() -> Recipe:
    """SimSiam, 100 epochs at batch 512: 68.1 linear."""
    optimizer = OptimizerConfig(base_lr=0.05, weight_decay=1e-4, per="epoch")
    return _recipe(SimSiamConfig(), optimizer, epochs=100, batch_size=512)
