"""Studies of what the methods need around them: norms, batches, targets, heads, a gradient.

As those of `studies`: a ResNet-18 of base width 16 for some hundred steps shows directions at best.
"""

from similitude.ablation.study import Cell, Study

_SIMSIAM = "ImageNet, 100 epochs, linear; Chen and He 2021"
_RICHEMOND = "ImageNet, 1,000 epochs, linear; Richemond et al. 2020"
_ZHANG = "Zhang et al. 2022"
_V2 = "ImageNet; Chen et al. 2020, SimCLR v2"
_GROUP, _GROUP_HEADS = "backbone.norm=group", "method.head_norm=group"
_NORMS = {
    "BatchNorm": (),
    "in the heads": (_GROUP,),
    "in the backbone": (_GROUP_HEADS,),
    "nowhere": (_GROUP, _GROUP_HEADS),
    "heads without norms": ("method.head_norm=false",),
}
_BATCHES = {"32": ("batch_size=32",), "512": ("batch_size=512",)}

CONDITIONS: dict[str, Study] = {
    "byol_batchnorm": Study(
        title="BYOL: BatchNorm in heads and backbone",
        question="Is BatchNorm, in which samples meet, a contrast in disguise?",
        recipe="cifar10.byol",
        changes=_NORMS,
        published={
            "nowhere: collapsed below 0.5": (
                "73.9 against 74.3 with GroupNorm and standardized convolutions in place of "
                f"BatchNorm ({_RICHEMOND})"
            ),
            "nowhere: linear above BatchNorm by -5": "",
            "heads without norms: collapsed above 0.5": (
                "no better than random weights without BatchNorm in the heads (Fetterman and "
                "Albrecht 2020, on another code)"
            ),
        },
        epochs=4,
    ),
    "simsiam_batchnorm": Study(
        title="SimSiam: BatchNorm in heads and backbone",
        question="Does SimSiam collapse without BatchNorm, or learn less?",
        recipe="cifar10.simsiam",
        changes=_NORMS,
        published={
            "heads without norms: collapsed below 0.5": (
                f"no collapse, but hard to train: 34.6 against 68.1 ({_SIMSIAM}, Tab. 3)"
            ),
            "heads without norms: linear below BatchNorm": "",
            "in the heads: linear below BatchNorm": (
                "GroupNorm in the backbone is in its way (arXiv:2103.03166)"
            ),
            "nowhere: collapsed below 0.5": "",
        },
        epochs=4,
    ),
    "batch_size": Study(
        title="Small and large batches",
        question="Who needs a large batch, at equal epochs and a rate in proportion?",
        recipe="cifar10.simclr",
        changes={f"SimCLR, {size}": change for size, change in _BATCHES.items()},
        others=tuple(
            Cell(f"{title}, {size}", f"cifar10.{name}", change)
            for title, name in (("BYOL", "byol"), ("SimSiam", "simsiam"), ("MoCo", "moco_v2"))
            for size, change in _BATCHES.items()
        ),
        published={
            "SimCLR, 32: linear below SimCLR, 512 by 2": (
                "its negatives are those of the batch: more of them are better (ImageNet; Chen et "
                "al. 2020, Fig. 9)"
            ),
            "BYOL, 32: linear above BYOL, 512 by -5": (
                "stable from 4,096 down to 256, lower below through BatchNorm (ImageNet; Grill et "
                "al. 2020, Fig. 3a)"
            ),
            "SimSiam, 32: linear above SimSiam, 512 by -3": (
                f"66.1 at 64, 68.1 at 256 and 512, 64.0 at 4,096 ({_SIMSIAM}, Tab. 2)"
            ),
            "MoCo, 32: linear above MoCo, 512 by -3": (
                "the queue frees the number of negatives from the batch (He et al. 2020, Sec. 3.2)"
            ),
        },
        epochs=6,
        seeds=1,
    ),
    "simsiam_targets": Study(
        title="SimSiam: similarity, symmetry and alternation",
        question="Is it the cosine, and is it an alternating optimization?",
        recipe="cifar10.simsiam",
        changes={
            "SimSiam": (),
            "cross-entropy": ("method.similarity=cross_entropy",),
            "one direction": ("method.symmetric=false",),
            "targets of 10 steps": ("method.alternating_steps=10",),
            "targets of 78 steps": ("method.alternating_steps=78",),  # of an epoch
        },
        published={
            "cross-entropy: collapsed below 0.5": (f"63.2 against 68.1 ({_SIMSIAM}, Sec. 4.5)"),
            "cross-entropy: linear below SimSiam": "",
            "one direction: collapsed below 0.5": f"64.8 against 68.1 ({_SIMSIAM}, Sec. 4.6)",
            "one direction: linear below SimSiam": "",
            "targets of 10 steps: linear above SimSiam by -2": (
                f"1 step: 68.1; 10: 68.7; 100: 68.9; an epoch: 67.0 ({_SIMSIAM}, Sec. 5.2)"
            ),
            "targets of 78 steps: linear above SimSiam by -5": "",
        },
    ),
    "simclr_v2_head": Study(
        title="SimCLR v2: depth of the head, and a memory",
        question="Does a deeper head help where few labels train from its first layer?",
        recipe="cifar10.simclr_v2",
        changes={
            "2 layers": ("method.projector_layers=2",),
            "3 layers": ("method.projector_layers=3",),
            "4 layers": ("method.projector_layers=4",),
            "3 layers, memory": ("method.projector_layers=3", "method.queue=true"),
        },
        settings=("method.queue_length=4096", "method.ema_decay=0.99"),
        published={
            "3 layers: finetuned above 2 layers": (
                f"deeper heads are better, most with few labels ({_V2}, Sec. 4.2)"
            ),
            "4 layers: finetuned above 2 layers": "",
            "3 layers, memory: linear above 3 layers": f"about 1 point ({_V2}, Sec. 2)",
        },
        epochs=4,
        label_fraction=0.01,
        from_layer=1,
    ),
    "moco_byol_finetuned": Study(
        title="MoCo v2 and BYOL: a probe, and fine-tuning",
        question="Is what a linear probe finds better also better to fine-tune?",
        recipe="cifar10.moco_v2",
        changes={"MoCo v2": ()},
        others=(Cell("BYOL", "cifar10.byol"),),
        published={
            "BYOL: linear above MoCo v2": (
                "70.6 against 69.9 (ImageNet, 200 epochs; Chen and He 2021, Tab. 4)"
            ),
            "MoCo v2: finetuned above BYOL": (
                "as the start of a detector, which benchmarks/dense.py trains: 57.0 against 55.3 "
                "(VOC, AP; Chen and He 2021, Tab. 5)"
            ),
        },
        epochs=6,
        label_fraction=0.1,
    ),
    "simsiam_gradient": Study(
        title="SimSiam: what its gradient does besides pulling",
        question="What keeps outputs apart that nothing pushes apart?",
        recipe="cifar10.simsiam",
        changes={
            "SimSiam": (),
            "no stop-gradient": ("method.stop_gradient=false",),
            "no predictor": ("method.predictor=none",),
            "bias predictor": ("method.predictor=bias",),
        },
        others=(Cell("SimCLR", "cifar10.simclr"),),
        published={
            "no stop-gradient: center_share above 0.5": (
                f"outputs that collapse are their center: its share goes to 1 ({_ZHANG}, Sec. 3)"
            ),
            "no predictor: center_share above SimSiam": "",
            "SimSiam: extra_center_cosine below 0": (
                f"the extra gradient's center is against that of the outputs ({_ZHANG}, Sec. 4)"
            ),
            "SimCLR: extra_center_cosine below -0.5": (
                f"that of InfoNCE is minus a mean of the outputs ({_ZHANG}, Sec. 4)"
            ),
            "SimSiam: effective_rank above bias predictor": (
                f"its residuals take apart what is correlated, which a vector cannot ({_ZHANG}, "
                "Sec. 4)"
            ),
            "bias predictor: collapsed below 0.5": (
                f"a single vector in place of the predictor is enough ({_ZHANG}, Sec. 5)"
            ),
        },
        epochs=5,
    ),
}
