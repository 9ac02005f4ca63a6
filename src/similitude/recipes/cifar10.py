"""Small recipes for CIFAR-10 and other small colour images: a few minutes on two CPU cores.

The papers train ResNet-18 for 200 to 1,000 epochs; these train a ResNet-18 of base width 16 for a
few, so rates and temperatures are tuned for a short run. Results: docs/results.md.
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
from similitude.views import ImageViewConfig

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)

# Crop, flip, jitter and grey without blur, as all papers do on 32-pixel images. Views of 24 pixels
# show crops at about the size that whole images of 32 have at evaluation, for half the arithmetic.
VIEW = ImageViewConfig(
    size=24,
    crop_scale=(0.2, 1.0),
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_probability=0.8,
    grey=0.2,
    blur=0.0,
)
BACKBONE = BackboneConfig(name="resnet18", stem="small", base_width=16)


def _recipe(
    method: MethodConfig, base_lr: float, weight_decay: float = 1e-4, epochs: int = 8
) -> Recipe:
    return Recipe(
        method=method,
        backbone=BACKBONE,
        optimizer=OptimizerConfig(base_lr=base_lr, weight_decay=weight_decay, warmup_epochs=0.5),
        epochs=epochs,
        batch_size=128,
        image_size=32,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
    )


def simclr() -> Recipe:
    """SimCLR with temperature 0.2 and the jitter of MoCo v2, milder than the paper's App. B.9."""
    method = SimCLRConfig(view=VIEW, projector_hidden=512, temperature=0.2)
    return _recipe(method, base_lr=0.3)


def simclr_v2() -> Recipe:
    """SimCLR's small recipe with a head of three layers, the first of which fine-tuning keeps."""
    method = SimCLRv2Config(view=VIEW, projector_hidden=512, temperature=0.2)
    return _recipe(method, base_lr=0.3)


def moco_v1() -> Recipe:
    """MoCo v1 with the CIFAR notebook's queue, decay and temperature."""
    return _moco(MoCoV1Config)


def moco_v2() -> Recipe:
    """MoCo v2 with the CIFAR notebook's queue, decay and temperature."""
    return _moco(MoCoV2Config)


def _moco(config: type[MoCoV1Config] | type[MoCoV2Config]) -> Recipe:
    method = config(
        view=VIEW,
        queue_length=4096,
        temperature=0.1,
        ema_decay=0.99,
        symmetric=True,
        bn_splits=4,
    )
    # Keys cost two more passes, so that six epochs take as long as eight of SimCLR.
    return _recipe(method, base_lr=0.3, weight_decay=5e-4, epochs=6)


def byol() -> Recipe:
    """BYOL; one family of views, since blur and solarisation need larger images."""
    method = BYOLConfig(view1=VIEW, view2=VIEW, hidden_dim=1024, ema_decay=0.95)
    return _recipe(method, base_lr=0.8)


def simsiam() -> Recipe:
    """SimSiam with the two-layer projector of the paper's App. D, narrower and shorter."""
    method = SimSiamConfig(view=VIEW, projector_layers=2, projection_dim=512, predictor_hidden=128)
    return _recipe(method, base_lr=0.4, weight_decay=5e-4)
