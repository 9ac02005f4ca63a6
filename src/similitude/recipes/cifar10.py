"""Small recipes for CIFAR-10 and other small color images: a few minutes on two CPU cores.

The papers train ResNet-18 for 200 to 1,000 epochs; these train a ResNet-18 of base width 16 for a
few, so rates and temperatures are tuned for a short run. Results: docs/results.md.
"""

from similitude.images.backbones import BackboneConfig
from similitude.images.config import ImageData
from similitude.images.views import ImageViewConfig, PatchViewConfig
from similitude.method import MethodConfig
from similitude.methods import (
    BarlowTwinsConfig,
    BarlowTwinsHSICConfig,
    BYOLConfig,
    CMCConfig,
    CPCV1Config,
    CPCV2Config,
    DIETConfig,
    DINOConfig,
    EndToEndConfig,
    InstDiscConfig,
    InvaSpreadConfig,
    MemoryBankConfig,
    MoCoV1Config,
    MoCoV2Config,
    MoCoV3Config,
    RAFTConfig,
    SimCLRConfig,
    SimCLRv2Config,
    SimSiamConfig,
    SimTripletConfig,
    SwAVConfig,
)
from similitude.recipes.recipe import OptimizerConfig, Recipe

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
# SwAV's and DINO's small crops: a quarter of the arithmetic.
LOCAL_VIEW = VIEW.changed(size=12, crop_scale=(0.1, 0.4))
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
        data=ImageData(image_size=32, mean=CIFAR_MEAN, std=CIFAR_STD),
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
        view=VIEW, queue_length=4096, temperature=0.1, ema_decay=0.99, symmetric=True, bn_splits=4
    )
    # Keys cost two more passes, so that six epochs take as long as eight of SimCLR.
    return _recipe(method, base_lr=0.3, weight_decay=5e-4, epochs=6)


def byol() -> Recipe:
    """BYOL; one family of views, since blur and solarization need larger images."""
    method = BYOLConfig(view1=VIEW, view2=VIEW, hidden_dim=1024, ema_decay=0.95)
    return _recipe(method, base_lr=0.8)


def simsiam() -> Recipe:
    """SimSiam with the two-layer projector of the paper's App. D, narrower and shorter."""
    method = SimSiamConfig(view=VIEW, projector_layers=2, projection_dim=512, predictor_hidden=128)
    return _recipe(method, base_lr=0.4, weight_decay=5e-4)


def swav() -> Recipe:
    """SwAV with fewer prototypes: a batch of 128 cannot be shared out evenly over thousands.

    Sharper assignments than the paper's: at 0.05 the loss of a short run stays at ln K.
    """
    method = SwAVConfig(
        view=VIEW,
        local_view=LOCAL_VIEW,
        local_views=2,
        hidden_dim=512,
        num_prototypes=256,
        epsilon=0.02,
        freeze_prototypes_steps=100,
    )
    return _recipe(method, base_lr=0.4)


def dino() -> Recipe:
    """DINO with a small ViT, patches of 4 pixels; views of 24 and 12 pixels are 36 and 9 of them.

    The target follows faster than in the papers, and temperatures stay: the run is short. The ViT
    is that of MoCo v3's small recipe.
    """
    method = DINOConfig(
        view1=VIEW,
        view2=VIEW,
        local_view=LOCAL_VIEW,
        local_views=2,
        hidden_dim=512,
        projection_dim=128,
        num_prototypes=1024,
        ema_decay=0.99,
    )
    vit: dict[str, int | float | str | bool | tuple[int, ...]] = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 64,
        "depth": 4,
        "num_heads": 4,
        "dynamic_img_size": True,
        "weight_init": "moco",  # timm's own start is too small for so narrow a network
    }
    adamw = OptimizerConfig(
        name="adamw",
        base_lr=0.002,
        weight_decay=0.04,
        final_weight_decay=0.4,
        warmup_epochs=0.5,
        final_lr=0.001,
    )
    recipe = _recipe(method, base_lr=0.002)
    backbone = BackboneConfig(name="vit_tiny_patch16_224", options=vit)
    return recipe.changed(backbone=backbone, optimizer=adamw)


def inst_disc() -> Recipe:
    """InstDisc with the full softmax, temperature and rate of the authors for CIFAR-10."""
    method = InstDiscConfig(view=VIEW, num_samples=50_000, loss="softmax", temperature=0.1)
    return _recipe(method, base_lr=0.06, weight_decay=5e-4)


def inva_spread() -> Recipe:
    """InvaSpread with the paper's temperature and the views of the other recipes here."""
    return _recipe(InvaSpreadConfig(view=VIEW), base_lr=0.3, weight_decay=5e-4)


def diet() -> Recipe:
    """DIET with four times the published rate, since the run is short."""
    method = DIETConfig(view=VIEW, num_samples=50_000)
    # One view is half the cost of two, so that sixteen epochs take as long as eight of SimCLR.
    return _with_adam(_recipe(method, base_lr=4e-3, weight_decay=0.05, epochs=16), "adamw")


def memory_bank() -> Recipe:
    """The memory bank with as many negatives as our MoCo has keys; the rate is InstDisc's."""
    method = MemoryBankConfig(view=VIEW, num_samples=50_000, num_negatives=4096, temperature=0.1)
    return _recipe(method, base_lr=0.06, weight_decay=5e-4)


def end_to_end() -> Recipe:
    """The end-to-end mechanism at the temperature, directions and splits of our MoCo."""
    method = EndToEndConfig(view=VIEW, temperature=0.1, symmetric=True, bn_splits=4)
    return _recipe(method, base_lr=0.3, weight_decay=5e-4)


def barlow_twins() -> Recipe:
    """Barlow Twins with the head, weight and optimizer of BT-HSIC's code for CIFAR-10."""
    return _barlow_twins(BarlowTwinsConfig)


def barlow_twins_hsic() -> Recipe:
    """BT-HSIC with the head, weight and optimizer of its code for CIFAR-10."""
    return _barlow_twins(BarlowTwinsHSICConfig)


def _barlow_twins(config: type[BarlowTwinsConfig] | type[BarlowTwinsHSICConfig]) -> Recipe:
    method = config(
        view1=VIEW,
        view2=VIEW,
        projector_layers=2,
        hidden_dim=512,
        projection_dim=128,
        off_diagonal_weight=1 / 128,
        bias_lr_scale=1.0,  # Adam needs none
    )
    return _with_adam(_recipe(method, base_lr=2e-3, weight_decay=1e-6))


def _with_adam(recipe: Recipe, name: str = "adam") -> Recipe:
    optimizer = recipe.optimizer.changed(name=name)
    return recipe.changed(optimizer=optimizer)


def moco_v3() -> Recipe:
    """MoCo v3 with the ViT's temperature; one family of views, narrower heads."""
    method = MoCoV3Config(
        view1=VIEW, view2=VIEW, hidden_dim=1024, projection_dim=128, temperature=0.2
    )
    # Keys cost two more passes, so that six epochs take as long as eight of SimCLR.
    return _recipe(method, base_lr=0.3, epochs=6)


def moco_v3_vit() -> Recipe:
    """MoCo v3 with a tiny ViT of 64 patches of 4 x 4 pixels, frozen as published."""
    whole = VIEW.changed(size=None)  # a ViT takes images of one size
    method = MoCoV3Config(
        view1=whole,
        view2=whole,
        projector_layers=3,
        predictor_last_norm=True,
        hidden_dim=512,
        projection_dim=128,
        temperature=0.2,
    )
    backbone = BackboneConfig(
        name="vit_tiny_patch16_224",
        options={"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4},
    )
    recipe = _recipe(method, base_lr=2e-3, weight_decay=0.1)
    return _with_adam(recipe.changed(backbone=backbone), "adamw")


def raft() -> Recipe:
    """RAFT with narrower heads and a faster teacher; Adam at the rate of its code, 3e-4."""
    method = RAFTConfig(view=VIEW, hidden_dim=1024, ema_decay=0.99)
    return _with_adam(_recipe(method, base_lr=6e-4, weight_decay=1e-6, epochs=6))


def simtriplet() -> Recipe:
    """SimTriplet with the heads of SimSiam's small recipe; whole images have no neighbors."""
    method = SimTripletConfig(
        view=VIEW, projector_layers=2, projection_dim=512, predictor_hidden=128
    )
    return _recipe(method, base_lr=0.4, weight_decay=5e-4, epochs=6)


# Every 6 pixels of 32; the rows that are predicted share no pixel with the context's last one.
PATCHES = PatchViewConfig(
    crop_scale=(0.6, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    grey=0.2,
    patch_size=8,
    grid=5,
    patch_crop=0.875,
)


def cpc_v1() -> Recipe:
    """CPC with 5 x 5 patches of 8 pixels that overlap by 2, and with other normalization."""
    method = CPCV1Config(view=PATCHES, prediction_steps=3, hidden_dim=64, context_layers=3)
    return _of_patches(method)


def cpc_v2() -> Recipe:
    """CPC v2 on the patches of CPC v1's small recipe, changed more; two directions, two steps."""
    view = PATCHES.changed(
        patch_crop=1.0, patch_flip=0.5, patch_jitter_probability=0.8, patch_grey=0.2, patch_drop=0.2
    )
    method = CPCV2Config(
        view=view, skip=1, prediction_steps=2, directions=2, hidden_dim=64, context_layers=3
    )
    return _of_patches(method)


def _of_patches(method: CPCV1Config | CPCV2Config) -> Recipe:
    # One norm for all channels and pixels of a patch: BatchNorm would show it the other patches.
    backbone = BACKBONE.changed(options={"norm_layer": "groupnorm1"})
    recipe = _with_adam(_recipe(method, base_lr=4e-3, weight_decay=1e-6, epochs=5))
    return recipe.changed(backbone=backbone)


def cmc() -> Recipe:
    """CMC with fewer negatives, the temperature of the authors' STL-10, and InstDisc's rate."""
    view = ImageViewConfig(
        size=24, crop_scale=(0.2, 1.0), jitter_probability=0.0, grey=0.0, blur=0.0, normalize=False
    )
    method = CMCConfig(
        view=view, num_samples=50_000, projection_dim=64, num_negatives=1024, temperature=0.1
    )
    return _recipe(method, base_lr=0.06)
