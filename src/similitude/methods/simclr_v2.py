"""SimCLR v2: big self-supervised models (Chen et al., NeurIPS 2020, arXiv:2006.10029).

    v1, v2 = t(x), t'(x)                 SimCLR's views
    h = backbone(v)                      deeper networks, the same loss (Sec. 2)
    z = projector(h)                     three layers, not two; fine-tuning keeps the first
    loss = NT-Xent(z1, z2)               eq. 1; with ``queue`` past keys are further candidates
    then fine-tune on few labels from the middle of the projector, then distil on all images
    (``sim.finetune``, ``sim.distill``; docs/finetuning.md)

What makes it v2 beside the bigger network and the deeper head: weight decay 1e-4 and a rate of
0.1 sqrt(batch size), in the recipe; and a memory network as MoCo's, whose outputs wait in a queue
and serve as further negatives (Sec. 2, about +1 point at batch 4096).

Differs from the reference code (google-research/simclr): as ``methods/simclr.py`` says. The queue
is in the paper alone, without details: here the online network's NT-Xent is kept as it is, and the
keys of the memory network for view 1 join the candidates of later batches.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.distributed import gather, own_share
from similitude.images.views import ImageViewConfig
from similitude.losses import nt_xent, nt_xent_with_queue, repulsion
from similitude.memory import FeatureQueue
from similitude.method import (
    Batch,
    Changes,
    Method,
    MethodConfig,
    Progress,
    QueueLength,
    StepOutput,
    Width,
)
from similitude.nets import ema_update_, frozen_copy, mlp, output_readings
from similitude.nets.backbone import Backbone
from similitude.nets.views import joined
from similitude.sample import AnyView, MultiView


class SimCLRv2Config(MethodConfig):
    """Defaults are the reference code's for ImageNet; queue and decay are from App. A."""

    name: Literal["simclr_v2"] = "simclr_v2"
    title: ClassVar[str] = "SimCLR v2"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.08, 1.0),
        interpolation="bicubic",
        jitter=(0.8, 0.8, 0.8, 0.2),
        jitter_probability=0.8,
        grey=0.2,
        blur=0.5,
        blur_kernel=0.1,  # of the image's height
        normalize=False,
    )
    projector_layers: int = Field(default=3, ge=2)  # Sec. 2; 2 is SimCLR
    projector_hidden: Width | None = None  # None: the backbone's features
    projection_dim: Width = 128
    projector_norm: bool = True  # BatchNorm in the head
    temperature: float = Field(default=0.1, gt=0)
    queue: bool = False  # the paper's memory; the released code has none
    queue_length: QueueLength = 65_536
    ema_decay: float = Field(default=0.999, ge=0, le=1)  # of the memory network

    def fitted(self, num_samples: int, batch_size: int, processes: int = 1) -> Changes:
        """Of the queue alone, if there is one."""
        return super().fitted(num_samples, batch_size, processes) if self.queue else {}


class SimCLRv2(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: SimCLRv2Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        hidden = [config.projector_hidden or features] * (config.projector_layers - 1)
        self.projector = mlp(
            [features, *hidden, config.projection_dim],
            norm=config.projector_norm,
            last_norm="scale" if config.projector_norm else "none",
        )
        for layer in self.projector:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
        if config.queue:
            self.target_backbone = frozen_copy(self.backbone)
            self.target_projector = frozen_copy(self.projector)
            self.queue = FeatureQueue(config.queue_length, config.projection_dim)

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        options = {"temperature": self.config.temperature, "share": own_share()}
        h = self.backbone(joined(batch.views))
        candidates = z = self.projector(h)
        z1, z2 = z.chunk(2)
        all1, all2 = gather(z1), gather(z2)
        if self.config.queue:
            negatives = self.queue.snapshot()
            candidates = torch.cat([z, negatives])
            loss = nt_xent_with_queue(all1, all2, negatives, **options)
            self.queue.enqueue(gather(self._keys(batch.views[0])))
        else:
            loss = nt_xent(all1, all2, **options)
        extra = repulsion(
            z1, candidates, temperature=self.config.temperature, left_out=(0, len(z1))
        )
        metrics = output_readings(z1, extra)
        return StepOutput(loss, features=h.detach().chunk(2)[0], metrics=metrics)

    @torch.no_grad()
    def _keys(self, view: Tensor) -> Tensor:
        """What the memory network makes of a view, as unit rows [N, P]."""
        return F.normalize(self.target_projector(self.target_backbone(view)), dim=1)

    def after_step(self, progress: Progress) -> None:
        if self.config.queue:
            ema_update_(self.target_backbone, self.backbone, self.config.ema_decay)
            ema_update_(self.target_projector, self.projector, self.config.ema_decay)

    def chance_loss(self, batch_size: int) -> float:
        queued = self.config.queue_length if self.config.queue else 0
        return math.log(2 * batch_size - 1 + queued)
