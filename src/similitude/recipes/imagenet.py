"""The papers' recipes for ImageNet and ResNet-50: views, heads, optimizer, schedule as published.

None of them has been run here to the end (they take days on several GPUs); each function names the
published linear accuracy it should reach. Crops are cut from canvases, which keep at most 256 px
of the short side unless ``canvas_size`` says more, and not from the photo itself: the smallest ones
are enlarged more than in the authors' code.
"""

from similitude.images.backbones import BackboneConfig
from similitude.images.config import ImageData
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

# Codes whose residual blocks do not start as the identity.
WHOLE_BLOCKS = (
    *("moco_v1", "moco_v2", "memory_bank", "end_to_end"),
    *("inst_disc", "inva_spread", "cmc", "swav", "raft", "simtriplet"),
)


def _recipe(
    method: MethodConfig, optimizer: OptimizerConfig, *, epochs: int, batch_size: int
) -> Recipe:
    return Recipe(
        method=method,
        backbone=BackboneConfig(name="resnet50", zero_init_last=method.name not in WHOLE_BLOCKS),
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        data=ImageData(image_size=224),
    )


def simclr() -> Recipe:
    """SimCLR, 1,000 epochs at batch 4,096: 69.3 linear (Tab. 6 and App. B.6)."""
    optimizer = OptimizerConfig(
        name="lars", base_lr=0.3, weight_decay=1e-6, warmup_epochs=10, lars_momentum="classic"
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


def swav() -> Recipe:
    """SwAV, 800 epochs at batch 4,096, two views of 224 pixels and six of 96: 75.3 linear.

    At batch 256 the authors use a rate of 0.6 without warm-up, a queue of 3,840 from epoch 15 and
    prototypes frozen for 5,005 steps: 74.3 after 400 epochs.
    """
    optimizer = OptimizerConfig(
        name="larc",
        base_lr=0.3,
        weight_decay=1e-6,
        warmup_epochs=10,
        warmup_start=0.3 / 4.8,
        final_lr=0.001,
    )
    recipe = _recipe(SwAVConfig(), optimizer, epochs=800, batch_size=4096)
    return recipe.changed(std=(0.228, 0.224, 0.225))  # of the authors' code


def dino() -> Recipe:
    """DINO, ViT-S/16, 100 epochs at batch 512: 69.3 kNN and 74.0 linear."""
    optimizer = OptimizerConfig(
        name="adamw",
        base_lr=0.0005,
        weight_decay=0.04,
        final_weight_decay=0.4,
        warmup_epochs=10,
        final_lr=0.001,
    )
    recipe = _recipe(DINOConfig(), optimizer, epochs=100, batch_size=512)
    vit = BackboneConfig(
        name="vit_small_patch16_224", options={"dynamic_img_size": True, "drop_path_rate": 0.1}
    )
    return recipe.changed(backbone=vit)


def dino_resnet50() -> Recipe:
    """DINO with a ResNet-50, 800 epochs: 67.5 kNN and 75.3 linear."""
    views = {
        "view1": {"crop_scale": (0.14, 1.0)},
        "view2": {"crop_scale": (0.14, 1.0)},
        "local_view": {"crop_scale": (0.05, 0.14)},
    }
    config = DINOConfig()
    method = config.changed(
        **({name: getattr(config, name).changed(**v) for name, v in views.items()})
    )
    optimizer = OptimizerConfig(base_lr=0.03, weight_decay=1e-4, warmup_epochs=10)
    return _recipe(method, optimizer, epochs=800, batch_size=512)


def inst_disc() -> Recipe:
    """InstDisc with 4,096 noise rows, 200 epochs at batch 256: 54.0 linear, 46.5 kNN."""
    optimizer = OptimizerConfig(base_lr=0.03, schedule="step", per="epoch")
    return _recipe(InstDiscConfig(), optimizer, epochs=200, batch_size=256)


def inva_spread() -> Recipe:
    """InvaSpread, which was not published on ImageNet: the paper's settings for CIFAR-10."""
    optimizer = OptimizerConfig(base_lr=0.06, weight_decay=5e-4, schedule="step", per="epoch")
    return _recipe(InvaSpreadConfig(), optimizer, epochs=200, batch_size=128)


def diet() -> Recipe:
    """DIET with the AdamW of smaller data sets; epochs are ours.

    Its authors speak of up to a few hundred thousand images (arXiv:2406.10743). For ImageNet W has
    2,048 numbers for each of 1.28 million: 42 GB with its gradient and AdamW's two moments.
    """
    optimizer = OptimizerConfig(
        name="adamw", base_lr=1e-3, weight_decay=0.05, warmup_epochs=10, final_lr=0.001
    )
    return _recipe(DIETConfig(), optimizer, epochs=300, batch_size=256)


def memory_bank() -> Recipe:
    """MoCo's memory bank with 65,536 negatives, 200 epochs at batch 256: 58.0 linear."""
    optimizer = OptimizerConfig(base_lr=0.03, schedule="step", per="epoch")
    return _recipe(MemoryBankConfig(), optimizer, epochs=200, batch_size=256)


def end_to_end() -> Recipe:
    """MoCo's end-to-end mechanism at its largest batch, 1,024, with the rate in proportion."""
    optimizer = OptimizerConfig(base_lr=0.03, schedule="step", per="epoch")
    return _recipe(EndToEndConfig(), optimizer, epochs=200, batch_size=1024)


def barlow_twins() -> Recipe:
    """Barlow Twins, 1,000 epochs at batch 2,048: 73.2 linear (Sec. 2.2)."""
    return _barlow_twins(BarlowTwinsConfig())


def barlow_twins_hsic() -> Recipe:
    """BT-HSIC in the setting of Barlow Twins, where its authors found similar accuracy."""
    return _barlow_twins(BarlowTwinsHSICConfig())


def _barlow_twins(method: MethodConfig) -> Recipe:
    optimizer = OptimizerConfig(
        name="lars", base_lr=0.2, weight_decay=1e-6, warmup_epochs=10, final_lr=0.001
    )
    return _recipe(method, optimizer, epochs=1000, batch_size=2048)


def moco_v3() -> Recipe:
    """MoCo v3 with ResNet-50, 100 epochs at batch 4,096: 68.9 linear."""
    optimizer = OptimizerConfig(name="lars", base_lr=0.6, weight_decay=1e-6, warmup_epochs=10)
    return _recipe(MoCoV3Config(), optimizer, epochs=100, batch_size=4096)


def moco_v3_vit() -> Recipe:
    """MoCo v3 with ViT-S/16 of 12 heads, 300 epochs at batch 4,096: 73.2 linear."""
    small_crops = {"crop_scale": (0.08, 1.0)}
    default = MoCoV3Config()
    method = MoCoV3Config(
        view1=default.view1.changed(**small_crops),
        view2=default.view2.changed(**small_crops),
        projector_layers=3,
        predictor_last_norm=True,
        temperature=0.2,
    )
    optimizer = OptimizerConfig(name="adamw", base_lr=1.5e-4, weight_decay=0.1, warmup_epochs=40)
    recipe = _recipe(method, optimizer, epochs=300, batch_size=4096)
    backbone = BackboneConfig(name="vit_small_patch16_224", options={"num_heads": 12})
    return recipe.changed(backbone=backbone)


def raft() -> Recipe:
    """RAFT, published for CIFAR-10 only, with BYOL's optimizer and decay for 300 epochs."""
    optimizer = OptimizerConfig(name="lars", base_lr=0.3, weight_decay=1e-6, warmup_epochs=10)
    return _recipe(RAFTConfig(ema_decay=0.99), optimizer, epochs=300, batch_size=4096)


def simtriplet() -> Recipe:
    """SimTriplet, published for tiles of slides, with SimSiam's optimizer at batch 128.

    ``tile_size`` says how large the tiles are; without it the third view is of the same image.
    """
    optimizer = OptimizerConfig(base_lr=0.05, weight_decay=1e-4, per="epoch")
    return _recipe(SimTripletConfig(), optimizer, epochs=400, batch_size=128)


def cpc_v1() -> Recipe:
    """CPC at batch 512 with Adam: 48.7 linear with most of a ResNet-101 (Tab. 3).

    The paper's network has no normalization and three of the four stages. Epochs are ours.
    """
    return _of_patches(CPCV1Config(), "resnet101", base_lr=1e-4, image_size=256)


def cpc_v2() -> Recipe:
    """CPC v2 at batch 512 with Adam: 63.8 linear with a ResNet-50, 71.5 with their ResNet-161.

    The paper trains with other moments of Adam and clipped gradients. Epochs are ours.
    """
    return _of_patches(CPCV2Config(), "resnet50", base_lr=2e-4, image_size=260)


def _of_patches(
    method: CPCV1Config | CPCV2Config, network: str, *, base_lr: float, image_size: int
) -> Recipe:
    optimizer = OptimizerConfig(name="adam", base_lr=base_lr, weight_decay=0, schedule="constant")
    return Recipe(
        method=method,
        # A norm within each patch: BatchNorm would show it the other patches (v2, Sec. 3.1).
        backbone=BackboneConfig(name=network, options={"norm_layer": "groupnorm1"}),
        optimizer=optimizer,
        epochs=200,
        batch_size=512,
        data=ImageData(image_size=image_size, canvas_size=300),
    )


def cmc() -> Recipe:
    """CMC, 240 epochs at batch 128, with a ResNet-50 for each view."""
    optimizer = OptimizerConfig(
        base_lr=0.06, schedule="step", step_milestones=(1 / 2, 2 / 3, 5 / 6), per="epoch"
    )
    return _recipe(CMCConfig(), optimizer, epochs=240, batch_size=128)
