"""The ablations this field is known for, each small enough for ten minutes on two CPU cores.

A study trains a ResNet-18 of base width 16, or a small ViT, for some hundred steps. It can show
directions, not the papers' numbers: those stand beside as text.
"""

import math

from similitude.ablation.study import COLLAPSED, Cell, Expectation, Study

_SIMSIAM = "ImageNet, 100 epochs, linear; Chen and He 2021"
_BYOL = "ImageNet, 300 epochs, linear; Grill et al. 2020, Tab. 5"
_MOCO = "ImageNet, 200 epochs, linear; He et al. 2020, Sec. 4.1"
_SIMCLR = "Chen et al. 2020"
_DINO = "Caron et al. 2021"
_INST_DISC = "CIFAR-10, kNN; Wu et al. 2018, Tab. 1"
_LEARNED = ("method.frozen_patch_embedding=false",)
_HIGH_RATE = ("optimizer.base_lr=0.02",)

STUDIES: dict[str, Study] = {
    "simsiam_stop_gradient": Study(
        title="SimSiam: stop-gradient and predictor",
        question="Does it take both to keep two branches without negatives from collapsing?",
        cells=(
            Cell("SimSiam", "cifar10.simsiam"),
            Cell("no stop-gradient", "cifar10.simsiam", ("method.stop_gradient=false",)),
            Cell("no predictor", "cifar10.simsiam", ("method.predictor=none",)),
            Cell("fixed predictor", "cifar10.simsiam", ("method.predictor=fixed",)),
        ),
        expected=(
            Expectation(
                "no stop-gradient",
                COLLAPSED,
                "above",
                0.5,
                published=f"loss -1, spread 0, 0.1 % against 67.7 % ({_SIMSIAM}, Fig. 2)",
            ),
            Expectation("no stop-gradient", "knn", "below", "SimSiam", by=5),
            Expectation(
                "no predictor",
                "knn",
                "below",
                "SimSiam",
                by=5,
                published=f"0.1 % against 67.7 % ({_SIMSIAM}, Tab. 1)",
            ),
            Expectation(
                "fixed predictor",
                COLLAPSED,
                "below",
                0.5,
                published=f"no collapse, but no convergence either: 1.5 % ({_SIMSIAM}, Tab. 1)",
            ),
        ),
        epochs=7,
        seeds=2,
        minutes=10,
    ),
    "byol_target": Study(
        title="BYOL: a slow target, and a predictor",
        question="How slowly must the target follow, and does it work without a predictor?",
        cells=(
            Cell("EMA 0.99", "cifar10.byol", ("method.ema_decay=0.99",)),
            Cell("EMA 0", "cifar10.byol", ("method.ema_decay=0",)),
            Cell("EMA 1", "cifar10.byol", ("method.ema_decay=1",)),
            Cell(
                "no predictor", "cifar10.byol", ("method.ema_decay=0.99", "method.predictor=none")
            ),
        ),
        settings=("method.ema_schedule=constant",),
        expected=(
            Expectation(
                "EMA 0", "knn", "below", "EMA 0.99", by=5, published=f"0.3 against 72.5 ({_BYOL})"
            ),
            Expectation(
                "EMA 1",
                "knn",
                "below",
                "EMA 0.99",
                by=2,
                published=f"a random target teaches something: 18.8 against 72.5 ({_BYOL})",
            ),
            Expectation(
                "no predictor",
                COLLAPSED,
                "above",
                0.5,
                published=f"it collapses: 0.2 against 72.5 ({_BYOL})",
            ),
        ),
        epochs=5,
        seeds=2,
        minutes=9,
    ),
    "moco_momentum": Study(
        title="MoCo: momentum, and BatchNorm that tells",
        question="How slowly must the keys' network move, and must BatchNorm be split?",
        cells=(
            Cell("EMA 0.99", "cifar10.moco_v2"),
            Cell("EMA 0", "cifar10.moco_v2", ("method.ema_decay=0",)),
            Cell("EMA 0.9", "cifar10.moco_v2", ("method.ema_decay=0.9",)),
            Cell("EMA 0.999", "cifar10.moco_v2", ("method.ema_decay=0.999",)),
            Cell("BatchNorm not split", "cifar10.moco_v2", ("method.bn_splits=1",)),
        ),
        settings=("method.symmetric=false", "method.bn_splits=8"),
        expected=(
            Expectation(
                "EMA 0",
                "knn",
                "below",
                "EMA 0.99",
                by=5,
                published=f"0: fails; 0.9: 55.2; 0.99: 57.8; 0.999: 59.0 ({_MOCO})",
            ),
            Expectation("EMA 0.9", "knn", "below", "EMA 0.99"),
            Expectation(
                "BatchNorm not split",
                "loss",
                "below",
                "EMA 0.99",
                published="statistics betray the positive: the task gets easy, and kNN falls "
                "(He et al. 2020, Sec. 3.3 and Fig. A.1)",
            ),
            Expectation("BatchNorm not split", "knn", "below", "EMA 0.99"),
        ),
        epochs=4,
        seeds=2,
        minutes=9,
    ),
    "simclr_head_and_views": Study(
        title="SimCLR: head, temperature and views",
        question="What do the head, the temperature and color changes contribute?",
        cells=(
            Cell("mlp head", "cifar10.simclr"),
            Cell("linear head", "cifar10.simclr", ("method.projector=linear",)),
            Cell("no head", "cifar10.simclr", ("method.projector=none",)),
            Cell("temperature 0.1", "cifar10.simclr", ("method.temperature=0.1",)),
            Cell("temperature 1", "cifar10.simclr", ("method.temperature=1",)),
            Cell(
                "crop only",
                "cifar10.simclr",
                ("method.view.jitter_probability=0", "method.view.grey=0"),
            ),
        ),
        settings=("method.temperature=0.5",),
        expected=(
            Expectation(
                "mlp head",
                "linear",
                "above",
                "linear head",
                published=f"3 points (ImageNet; {_SIMCLR}, Sec. 4.2, Fig. 8)",
            ),
            Expectation(
                "mlp head",
                "linear",
                "above",
                "no head",
                published=f"more than 10 points (ImageNet; {_SIMCLR}, Sec. 4.2, Fig. 8)",
            ),
            Expectation(
                "mlp head",
                "linear",
                "above",
                "temperature 0.1",
                published=f"0.5 is best on CIFAR-10 ({_SIMCLR}, App. B.9)",
            ),
            Expectation("mlp head", "linear", "above", "temperature 1"),
            Expectation(
                "crop only",
                "linear",
                "below",
                "mlp head",
                by=5,
                published="27.6 points lost (ImageNet; measured by Grill et al. 2020, Fig. 3)",
            ),
        ),
        epochs=4,
        seeds=2,
        minutes=9,
    ),
    "barlow_redundancy": Study(
        title="Barlow Twins: the off-diagonal weight",
        question="What is left without the term that makes features differ?",
        cells=(
            Cell("Barlow Twins", "cifar10.barlow_twins"),
            Cell("diagonal only", "cifar10.barlow_twins", ("method.off_diagonal_weight=0",)),
            Cell("weight 0.1", "cifar10.barlow_twins", ("method.off_diagonal_weight=0.1",)),
        ),
        expected=(
            Expectation(
                "diagonal only",
                "effective_rank",
                "below",
                "Barlow Twins",
                published="either term alone is much worse (ImageNet; Zbontar et al. 2021, Sec. 4)",
            ),
            Expectation("diagonal only", "linear", "below", "Barlow Twins", by=5),
        ),
        epochs=5,
        seeds=3,
        minutes=9,
    ),
    "dino_collapse": Study(
        title="DINO: centering, sharpening and momentum",
        question="Which collapse does each of them prevent?",
        cells=(
            Cell("DINO", "cifar10.dino"),
            Cell("no centering", "cifar10.dino", ("method.centering=false",)),
            Cell(
                "no sharpening",
                "cifar10.dino",
                ("method.target_temperature=0.1", "method.warmup_target_temperature=0.1"),
            ),
            Cell(
                "no momentum",
                "cifar10.dino",
                ("method.ema_decay=0", "method.ema_schedule=constant"),
            ),
        ),
        settings=(
            "method.local_views=0",
            "backbone.name=resnet18",  # in so few steps a ViT learns nothing to compare
            "backbone.options={}",
            "backbone.stem=small",
            "backbone.base_width=16",
        ),
        expected=(
            Expectation(
                "no centering",
                "target_entropy",
                "below",
                0.5,
                published=f"entropy 0: one output takes all ({_DINO}, Sec. 5.3, Fig. 7)",
            ),
            Expectation(
                "no sharpening",
                "target_entropy",
                "above",
                0.99 * math.log(1024),
                published=f"entropy ln K: all outputs alike ({_DINO}, Sec. 5.3, Fig. 7)",
            ),
            Expectation(
                "no momentum",
                "knn",
                "below",
                "DINO",
                by=5,
                published=f"0.1 against 72.8 (ImageNet, 300 epochs, kNN; {_DINO}, Tab. 7)",
            ),
        ),
        epochs=5,
        seeds=2,
        minutes=9,
    ),
    "swav_assignments": Study(
        title="SwAV: equal shares, and a slow start of the prototypes",
        question="What happens without equal shares, and at a high rate without a frozen start?",
        cells=(
            Cell("Sinkhorn", "cifar10.swav"),
            Cell("softmax", "cifar10.swav", ("method.assignment=softmax",)),
            Cell("high rate, frozen", "cifar10.swav", ("optimizer.base_lr=16",)),
            Cell(
                "high rate, free",
                "cifar10.swav",
                ("optimizer.base_lr=16", "method.freeze_prototypes_steps=0"),
            ),
        ),
        settings=("method.local_views=2",),
        expected=(
            Expectation(
                "softmax",
                "prototype_entropy",
                "below",
                "Sinkhorn",
                by=1,
                published="without equal shares one code for all is a solution "
                "(Caron et al. 2020, Sec. 3.1)",
            ),
            Expectation("softmax", "knn", "below", "Sinkhorn", by=5),
            Expectation(
                "high rate, free",
                "loss",
                "above",
                0.99 * math.log(256),
                published="stuck at ln K, unless the prototypes are frozen at first "
                "(the authors' notes on their code)",
            ),
            Expectation("high rate, frozen", "loss", "below", 0.99 * math.log(256)),
        ),
        epochs=5,
        seeds=2,
        minutes=9,
    ),
    "instance_negatives": Study(
        title="Instance discrimination: how many negatives",
        question="How many negatives does it take, and is a second view better than a memory?",
        cells=(
            Cell("full softmax", "cifar10.inst_disc"),
            Cell("NCE, 1", "cifar10.inst_disc", ("method.loss=nce", "method.num_negatives=1")),
            Cell("NCE, 512", "cifar10.inst_disc", ("method.loss=nce", "method.num_negatives=512")),
            Cell(
                "NCE, 4096", "cifar10.inst_disc", ("method.loss=nce", "method.num_negatives=4096")
            ),
            Cell("InvaSpread", "cifar10.inva_spread"),
        ),
        expected=(
            Expectation(
                "NCE, 1",
                "knn",
                "below",
                "NCE, 4096",
                by=5,
                published=f"1: 42.5; 512: 78.4; 4,096: 80.4; all: 80.8 ({_INST_DISC})",
            ),
            Expectation("full softmax", "knn", "above", "NCE, 1", by=5),
            Expectation(
                "InvaSpread",
                "knn",
                "above",
                "full softmax",
                published="83.6 against 80.8, and faster (CIFAR-10, kNN; Ye et al. 2019)",
            ),
        ),
        epochs=6,
        seeds=2,
        minutes=8,
    ),
    "contrast_mechanisms": Study(
        title="Where negatives come from: batch, bank or queue",
        question="At an equal number of negatives, which mechanism teaches most?",
        cells=(
            Cell("batch, 127", "cifar10.end_to_end", ("method.symmetric=false",)),
            Cell("bank, 128", "cifar10.memory_bank", ("method.num_negatives=128",)),
            Cell(
                "queue, 128",
                "cifar10.moco_v1",
                ("method.symmetric=false", "method.queue_length=128"),
            ),
            Cell("queue, 4096", "cifar10.moco_v1", ("method.symmetric=false",)),
        ),
        expected=(
            Expectation(
                "bank, 128",
                "knn",
                "below",
                "queue, 128",
                published=f"58.0 against 60.6, both with 65,536 ({_MOCO}, Fig. 3)",
            ),
            Expectation(
                "bank, 128",
                "knn",
                "below",
                "batch, 127",
                published=f"batch and queue are alike where both are possible ({_MOCO}, Fig. 3)",
            ),
            Expectation(
                "queue, 4096",
                "knn",
                "above",
                "queue, 128",
                published=f"more keys are better in all three ({_MOCO}, Fig. 3)",
            ),
        ),
        epochs=5,
        seeds=2,
        minutes=8,
    ),
    "moco_v3_patches": Study(
        title="MoCo v3: a frozen patch embedding",
        question="Does a ViT train better when its first layer stays random?",
        cells=(
            Cell("frozen", "cifar10.moco_v3_vit"),
            Cell("learned", "cifar10.moco_v3_vit", _LEARNED),
            Cell("frozen, high rate", "cifar10.moco_v3_vit", _HIGH_RATE),
            Cell("learned, high rate", "cifar10.moco_v3_vit", _HIGH_RATE + _LEARNED),
        ),
        settings=("backbone.options.patch_size=8",),
        expected=(
            Expectation(
                "frozen",
                "knn",
                "above",
                "learned",
                published="smoother curves and a higher accuracy at every rate, most where "
                "training is unstable (ImageNet; Chen et al. 2021, Sec. 4.2)",
            ),
            Expectation("frozen, high rate", "knn", "above", "learned, high rate"),
        ),
        epochs=7,
        seeds=2,
        minutes=9,
    ),
}
