"""MoCo: momentum contrast (He et al., CVPR 2020, arXiv:1911.05722), and v2 (arXiv:2003.04297).

    v_q, v_k = t(x), t(x)
    q = unit(projector(backbone(v_q)))               query: online
    k = unit(target_projector(target_backbone(v_k))) key: no gradient
    loss = InfoNCE(q, k, queue)          eq. 1; the queue holds past keys, never this batch's
    enqueue k
    target <- m target + (1 - m) online              eq. 2

The paper's "query encoder" is our online network, its "key encoder" our target. v2 is v1 with an
MLP head, blur and milder jitter, a higher temperature and a cosine schedule; both are this class
with two sets of defaults.

BatchNorm: the authors train on 8 GPUs whose BatchNorm is local and shuffle the keys between them,
so that a query and its key never share statistics. On one device ``bn_splits`` imitates it as the
authors' CIFAR notebook does: statistics over interleaved parts of the batch, keys in another order.

Differs from the reference code (facebookresearch/moco): the target moves after the optimizer step
instead of before the next keys are encoded: the same weights are read. v1's code greys before the
jitter, ours after it, as v2's. A step's order of the keys
is a function of the step number, not of a global random state, so that a resumed run repeats it.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from similitude.devices import moved
from similitude.distributed import gather, own_rows
from similitude.images.views import ImageViewConfig
from similitude.losses import info_nce, repulsion
from similitude.memory import FeatureQueue
from similitude.method import (
    Batch,
    BatchParts,
    Method,
    MethodConfig,
    Progress,
    QueueLength,
    StepOutput,
    Width,
)
from similitude.nets import (
    build_head,
    convert_split_batchnorm,
    ema_update_,
    frozen_copy,
    output_readings,
)
from similitude.nets.backbone import Backbone
from similitude.nets.views import gathered, rows_at
from similitude.randomness import permutation
from similitude.sample import AnyView, MultiView


class MoCoConfig(MethodConfig):
    """What both versions share; numbers are those for ImageNet and ResNet-50."""

    projection_dim: Width = 128
    queue_length: QueueLength = 65_536  # 4,096 in the CIFAR notebook
    ema_decay: float = Field(default=0.999, ge=0, le=1)  # 0.99 in the CIFAR notebook
    symmetric: bool = False  # True: the sum of both directions, as in the CIFAR notebook
    bn_splits: BatchParts = 8  # 1: BatchNorm over the whole batch, which leaks


class MoCoV1Config(MoCoConfig):
    """MoCo v1 (Sec. 3.3)."""

    name: Literal["moco_v1"] = "moco_v1"
    title: ClassVar[str] = "MoCo v1"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.4),
        jitter_probability=1.0,
        grey=0.2,
        blur=0.0,
    )
    projector: Literal["mlp", "linear", "none"] = "linear"
    temperature: float = Field(default=0.07, gt=0)  # 0.1 in the CIFAR notebook


class MoCoV2Config(MoCoConfig):
    """MoCo v2 (Sec. 3)."""

    name: Literal["moco_v2"] = "moco_v2"
    title: ClassVar[str] = "MoCo v2"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grey=0.2,
        blur=0.5,
    )
    projector: Literal["mlp", "linear", "none"] = "mlp"
    temperature: float = Field(default=0.2, gt=0)


class MoCo(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, as in the reference code

    def __init__(self, backbone: Backbone, config: MoCoV1Config | MoCoV2Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = convert_split_batchnorm(backbone, config.bn_splits)
        features = backbone.num_features
        self.projector, dim = build_head(config.projector, features, config.projection_dim)
        self.target_backbone = frozen_copy(self.backbone)
        self.target_projector = frozen_copy(self.projector)
        self.queue = FeatureQueue(config.queue_length, dim)

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        temperature = self.config.temperature
        negatives = self.queue.snapshot()
        h1 = self.backbone(v1)
        z1 = self.projector(h1)
        keys = self._keys(v2, progress)
        q1 = F.normalize(z1, dim=1)
        loss = info_nce(q1, own_rows(keys), negatives, temperature=temperature)
        if self.config.symmetric:
            q2 = F.normalize(self.projector(self.backbone(v2)), dim=1)
            keys1 = self._keys(v1, progress)
            loss = loss + info_nce(q2, own_rows(keys1), negatives, temperature=temperature)
            keys = torch.cat([keys1, keys])
        self.queue.enqueue(keys)
        metrics = output_readings(z1, repulsion(q1, negatives, temperature=temperature))
        return StepOutput(loss, features=h1.detach(), metrics=metrics)

    @torch.no_grad()
    def _keys(self, view: Any, progress: Progress) -> Tensor:
        """Unit keys of the whole batch [M, P]; each process encodes a random part of it.

        A query and its key so meet other samples in BatchNorm (Sec. 3.3, Shuffling BN).
        """
        views = gathered(view)
        order = moved(permutation(0, progress.step, len(views)), view.device)
        k = self.target_projector(self.target_backbone(rows_at(views, own_rows(order))))
        return gather(F.normalize(k, dim=1))[order.argsort()]

    def after_step(self, progress: Progress) -> None:
        ema_update_(self.target_backbone, self.backbone, self.config.ema_decay)
        ema_update_(self.target_projector, self.projector, self.config.ema_decay)

    def chance_loss(self, batch_size: int) -> float:
        directions = 2 if self.config.symmetric else 1
        return directions * math.log(1 + self.config.queue_length)
