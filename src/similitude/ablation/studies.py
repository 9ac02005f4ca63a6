"""The ablations this field is known for, each small enough for ten minutes on two CPU cores.

A study trains a ResNet-18 of base width 16, or a small ViT, for some hundred steps. It can show
directions, not the papers' numbers: those stand beside as text.
"""

import math

from similitude.ablation.conditions import CONDITIONS
from similitude.ablation.study import Cell, Study

_SIMSIAM = "ImageNet, 100 epochs, linear; Chen and He 2021"
_BYOL = "ImageNet, 300 epochs, linear; Grill et al. 2020, Tab. 5"
_MOCO = "ImageNet, 200 epochs, linear; He et al. 2020, Sec. 4.1"
_SIMCLR = "Chen et al. 2020"
_DINO = "Caron et al. 2021"
_INST_DISC = "CIFAR-10, kNN; Wu et al. 2018, Tab. 1"
_LEARNED = "method.frozen_patch_embedding=false"
_HIGH_RATE = "optimizer.base_lr=0.02"

STUDIES: dict[str, Study] = {
    "simsiam_stop_gradient": Study(
        title="SimSiam: stop-gradient and predictor",
        question="Does it take both to keep two branches without negatives from collapsing?",
        recipe="cifar10.simsiam",
        changes={
            "SimSiam": (),
            "no stop-gradient": ("method.stop_gradient=false",),
            "no predictor": ("method.predictor=none",),
            "fixed predictor": ("method.predictor=fixed",),
        },
        published={
            "no stop-gradient: collapsed above 0.5": (
                f"loss -1, spread 0, 0.1 % against 67.7 % ({_SIMSIAM}, Fig. 2)"
            ),
            "no stop-gradient: knn below SimSiam by 5": "",
            "no predictor: knn below SimSiam by 5": f"0.1 % against 67.7 % ({_SIMSIAM}, Tab. 1)",
            "fixed predictor: collapsed below 0.5": (
                f"no collapse, but no convergence either: 1.5 % ({_SIMSIAM}, Tab. 1)"
            ),
        },
        epochs=7,
    ),
    "byol_target": Study(
        title="BYOL: a slow target, and a predictor",
        question="How slowly must the target follow, and does it work without a predictor?",
        recipe="cifar10.byol",
        changes={
            "EMA 0.99": ("method.ema_decay=0.99",),
            "EMA 0": ("method.ema_decay=0",),
            "EMA 1": ("method.ema_decay=1",),
            "no predictor": ("method.ema_decay=0.99", "method.predictor=none"),
        },
        settings=("method.ema_schedule=constant",),
        published={
            "EMA 0: knn below EMA 0.99 by 5": f"0.3 against 72.5 ({_BYOL})",
            "EMA 1: knn below EMA 0.99 by 2": (
                f"a random target teaches something: 18.8 against 72.5 ({_BYOL})"
            ),
            "no predictor: collapsed above 0.5": f"it collapses: 0.2 against 72.5 ({_BYOL})",
        },
        minutes=9,
    ),
    "moco_momentum": Study(
        title="MoCo: momentum, and BatchNorm that tells",
        question="How slowly must the keys' network move, and must BatchNorm be split?",
        recipe="cifar10.moco_v2",
        changes={
            "EMA 0.99": (),
            "EMA 0": ("method.ema_decay=0",),
            "EMA 0.9": ("method.ema_decay=0.9",),
            "EMA 0.999": ("method.ema_decay=0.999",),
            "BatchNorm not split": ("method.bn_splits=1",),
        },
        settings=("method.symmetric=false", "method.bn_splits=8"),
        published={
            "EMA 0: knn below EMA 0.99 by 5": (
                f"0: fails; 0.9: 55.2; 0.99: 57.8; 0.999: 59.0 ({_MOCO})"
            ),
            "EMA 0.9: knn below EMA 0.99": "",
            "BatchNorm not split: loss below EMA 0.99": (
                "statistics betray the positive: the task gets easy, and kNN falls "
                "(He et al. 2020, Sec. 3.3 and Fig. A.1)"
            ),
            "BatchNorm not split: knn below EMA 0.99": "",
        },
        epochs=4,
        minutes=9,
    ),
    "simclr_head_and_views": Study(
        title="SimCLR: head, temperature and views",
        question="What do the head, the temperature and color changes contribute?",
        recipe="cifar10.simclr",
        changes={
            "mlp head": (),
            "linear head": ("method.projector=linear",),
            "no head": ("method.projector=none",),
            "temperature 0.1": ("method.temperature=0.1",),
            "temperature 1": ("method.temperature=1",),
            "crop only": ("method.view.jitter_probability=0", "method.view.grey=0"),
        },
        settings=("method.temperature=0.5",),
        published={
            "mlp head: linear above linear head": (
                f"3 points (ImageNet; {_SIMCLR}, Sec. 4.2, Fig. 8)"
            ),
            "mlp head: linear above no head": (
                f"more than 10 points (ImageNet; {_SIMCLR}, Sec. 4.2, Fig. 8)"
            ),
            "mlp head: linear above temperature 0.1": (
                f"0.5 is best on CIFAR-10 ({_SIMCLR}, App. B.9)"
            ),
            "mlp head: linear above temperature 1": "",
            "crop only: linear below mlp head by 5": (
                "27.6 points lost (ImageNet; measured by Grill et al. 2020, Fig. 3)"
            ),
        },
        epochs=4,
        minutes=9,
    ),
    "barlow_redundancy": Study(
        title="Barlow Twins: the off-diagonal weight",
        question="What is left without the term that makes features differ?",
        recipe="cifar10.barlow_twins",
        changes={
            "Barlow Twins": (),
            "diagonal only": ("method.off_diagonal_weight=0",),
            "weight 0.1": ("method.off_diagonal_weight=0.1",),
        },
        published={
            "diagonal only: effective_rank below Barlow Twins": (
                "either term alone is much worse (ImageNet; Zbontar et al. 2021, Sec. 4)"
            ),
            "diagonal only: linear below Barlow Twins by 5": "",
        },
        seeds=3,
        minutes=9,
    ),
    "dino_collapse": Study(
        title="DINO: centering, sharpening and momentum",
        question="Which collapse does each of them prevent?",
        recipe="cifar10.dino",
        changes={
            "DINO": (),
            "no centering": ("method.centering=false",),
            "no sharpening": (
                "method.target_temperature=0.1",
                "method.warmup_target_temperature=0.1",
            ),
            "no momentum": ("method.ema_decay=0", "method.ema_schedule=constant"),
        },
        settings=(
            "method.local_views=0",
            "backbone.name=resnet18",  # in so few steps a ViT learns nothing to compare
            "backbone.options={}",
            "backbone.stem=small",
            "backbone.base_width=16",
        ),
        published={
            "no centering: target_entropy below 0.5": (
                f"entropy 0: one output takes all ({_DINO}, Sec. 5.3, Fig. 7)"
            ),
            f"no sharpening: target_entropy above {0.99 * math.log(1024)}": (
                f"entropy ln K: all outputs alike ({_DINO}, Sec. 5.3, Fig. 7)"
            ),
            "no momentum: knn below DINO by 5": (
                f"0.1 against 72.8 (ImageNet, 300 epochs, kNN; {_DINO}, Tab. 7)"
            ),
        },
        minutes=9,
    ),
    "swav_assignments": Study(
        title="SwAV: equal shares, and a slow start of the prototypes",
        question="What happens without equal shares, and at a high rate without a frozen start?",
        recipe="cifar10.swav",
        changes={
            "Sinkhorn": (),
            "softmax": ("method.assignment=softmax",),
            "high rate, frozen": ("optimizer.base_lr=16",),
            "high rate, free": ("optimizer.base_lr=16", "method.freeze_prototypes_steps=0"),
        },
        settings=("method.local_views=2",),
        published={
            "softmax: prototype_entropy below Sinkhorn by 1": (
                "without equal shares one code for all is a solution (Caron et al. 2020, Sec. 3.1)"
            ),
            "softmax: knn below Sinkhorn by 5": "",
            f"high rate, free: loss above {0.99 * math.log(256)}": (
                "stuck at ln K, unless the prototypes are frozen at first "
                "(the authors' notes on their code)"
            ),
            f"high rate, frozen: loss below {0.99 * math.log(256)}": "",
        },
        minutes=9,
    ),
    "instance_negatives": Study(
        title="Instance discrimination: how many negatives",
        question="How many negatives does it take, and is a second view better than a memory?",
        recipe="cifar10.inst_disc",
        changes={
            "full softmax": (),
            "NCE, 1": ("method.loss=nce", "method.num_negatives=1"),
            "NCE, 512": ("method.loss=nce", "method.num_negatives=512"),
            "NCE, 4096": ("method.loss=nce", "method.num_negatives=4096"),
            "NCE, 4096, moving Z": (
                "method.loss=nce",
                "method.num_negatives=4096",
                "method.normalizer_decay=0.9",
            ),
        },
        others=(Cell("InvaSpread", "cifar10.inva_spread"),),
        published={
            "NCE, 1: knn below NCE, 4096 by 5": (
                f"1: 42.5; 512: 78.4; 4,096: 80.4; all: 80.8 ({_INST_DISC})"
            ),
            "full softmax: knn above NCE, 1 by 5": "",
            "NCE, 4096, moving Z: knn above NCE, 4096 by 5": (
                "estimated once it is wrong where the bank is not noise (He 2019, on CMC's code)"
            ),
            "InvaSpread: knn above full softmax": (
                "83.6 against 80.8, and faster (CIFAR-10, kNN; Ye et al. 2019)"
            ),
        },
        epochs=6,
    ),
    "contrast_mechanisms": Study(
        title="Where negatives come from: batch, bank or queue",
        question="At an equal number of negatives, which mechanism teaches most?",
        recipe="cifar10.end_to_end",
        changes={"batch, 127": ("method.symmetric=false",)},
        others=(
            Cell("bank, 128", "cifar10.memory_bank", ("method.num_negatives=128",)),
            Cell(
                "queue, 128",
                "cifar10.moco_v1",
                ("method.symmetric=false", "method.queue_length=128"),
            ),
            Cell("queue, 4096", "cifar10.moco_v1", ("method.symmetric=false",)),
        ),
        published={
            "bank, 128: knn below queue, 128": (
                f"58.0 against 60.6, both with 65,536 ({_MOCO}, Fig. 3)"
            ),
            "bank, 128: knn below batch, 127": (
                f"batch and queue are alike where both are possible ({_MOCO}, Fig. 3)"
            ),
            "queue, 4096: knn above queue, 128": (
                f"more keys are better in all three ({_MOCO}, Fig. 3)"
            ),
        },
        minutes=8,
    ),
    "moco_v3_patches": Study(
        title="MoCo v3: a frozen patch embedding",
        question="Does a ViT train better when its first layer stays random?",
        recipe="cifar10.moco_v3_vit",
        changes={
            "frozen": (),
            "learned": (_LEARNED,),
            "frozen, high rate": (_HIGH_RATE,),
            "learned, high rate": (_HIGH_RATE, _LEARNED),
        },
        settings=("backbone.options.patch_size=8",),
        published={
            "frozen: knn above learned": (
                "smoother curves and a higher accuracy at every rate, most where training is "
                "unstable (ImageNet; Chen et al. 2021, Sec. 4.2)"
            ),
            "frozen, high rate: knn above learned, high rate": "",
        },
        epochs=7,
        minutes=9,
    ),
    **CONDITIONS,
}
