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
    SimSiamConfig,
)
from similitude.recipes.recipe import OptimizerConfig, Recipe
from similitude.views import ImageViewConfig

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)

# Crop, flip, jitter and grey without blur, as all papers do on 32-pixel images.
VIEW = ImageViewConfig(
    crop_scale=(0.2, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), jitter_probability=0.8, grey=0.2, blur=0.0
)
BACKBONE = BackboneConfig(name="resnet18", stem="small", base_width=16)


def _recipe(method: MethodConfig, optimizer: OptimizerConfig, batch_size: int = 256) -> Recipe:
    return Recipe(
        method=method,
        backbone=BACKBONE,
        optimizer=optimizer,
        epochs=8,
        batch_size=batch_size,
        image_size=32,
        mean=CIFAR_MEAN,
        std=CIFAR_STD,
    )


def simclr() -> Recipe:
    """SimCLR, milder than the paper's App. B.9: kNN 62.4, linear 63.4 after 8 epochs, one seed.

    Temperature 0.2, jitter of MoCo v2, and views of 24 pixels, which show crops at about the size
    that whole images of 32 pixels have at evaluation, for half the arithmetic.
    """
    view = VIEW.model_copy(update={"size": 24})
    method = SimCLRConfig(view=view, projector_hidden=512, temperature=0.2)
    optimizer = OptimizerConfig(base_lr=0.3, weight_decay=1e-4, warmup_epochs=0.5)
    return _recipe(method, optimizer, batch_size=128)


def moco_v1() -> Recipe:
    """MoCo v1 with the CIFAR notebook's queue, decay and temperature."""
    method = MoCoV1Config(
        view=VIEW, queue_length=4096, temperature=0.1, ema_decay=0.99, symmetric=True
    )
    return _recipe(method, OptimizerConfig(base_lr=0.06, weight_decay=5e-4))


def moco_v2() -> Recipe:
    """MoCo v2 with the CIFAR notebook's queue and decay."""
    method = MoCoV2Config(
        view=VIEW, queue_length=4096, temperature=0.1, ema_decay=0.99, symmetric=True
    )
    return _recipe(method, OptimizerConfig(base_lr=0.06, weight_decay=5e-4))


def byol() -> Recipe:
    """BYOL; one family of views, since blur and solarisation need larger images."""
    method = BYOLConfig(view1=VIEW, view2=VIEW, hidden_dim=1024, ema_decay=0.97)
    return _recipe(method, OptimizerConfig(base_lr=0.2, weight_decay=1e-4, warmup_epochs=0.5))


def simsiam() -> Recipe:
    """SimSiam with the two-layer projector of the paper's App. D, narrower and shorter."""
    method = SimSiamConfig(view=VIEW, projector_layers=2, projection_dim=512, predictor_hidden=128)
    return _recipe(method, OptimizerConfig(base_lr=0.06, weight_decay=5e-4))
