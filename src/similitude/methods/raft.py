"""RAFT: run away from your teacher (Shi et al., 2020, arXiv:2011.10944).

    v1, v2 = t(x), t(x)
    p = predictor(projector(backbone(v)))            online network
    z = target_projector(target_backbone(v))         mean teacher: no gradient
    alignment   = |p1 - p2|^2                        unit vectors
    cross-model = (|p1 - z1|^2 + |p2 - z2|^2) / 2    the same view in both networks
    loss = alpha alignment - beta cross-model
    target <- m target + (1 - m) online              after the optimizer step

Two views are drawn together while the network is driven away from its own past, which keeps it
from collapsing. BYOL's loss is at most 2 alignment + 2 cross-model (the triangle inequality):
with a negative ``cross_model_weight`` this is the paper's BYOL', which runs towards the teacher.

Differs from the reference code (WOWNICE/RAFT): the target starts as a copy of the online network
(``--same-init``; the code's default draws other weights). Squared distances are sums over the
features in both terms, as the paper writes them; the code has the mean in one or both of them,
depending on the revision. Cropping is that of SimCLR.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from similitude.images.views import ImageViewConfig
from similitude.losses import normalized_regression
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import build_head, ema_update_, frozen_copy, mlp, output_readings
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView
from similitude.schedules import cosine


class RAFTConfig(MethodConfig):
    """Heads are BYOL's, with a bias at their end.

    Weights and decay are those of the reference code, which trains on CIFAR-10.
    """

    name: Literal["raft"] = "raft"
    title: ClassVar[str] = "RAFT"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.08, 1.0),
        jitter=(0.8, 0.8, 0.8, 0.2),
        jitter_probability=0.8,
        grey=0.2,
        blur=0.0,
    )
    alignment_weight: float = Field(default=1.0, ge=0)  # alpha
    cross_model_weight: float = 1.0  # beta; 0: alignment alone, negative: BYOL'
    projector: Literal["mlp", "linear", "none"] = "mlp"
    predictor: Literal["mlp", "linear", "none"] = "mlp"
    hidden_dim: Width = 4096  # of the projector and of the predictor
    projection_dim: Width = 256
    ema_decay: float = Field(default=0.996, ge=0, le=1)
    ema_schedule: Literal["constant", "cosine"] = "constant"  # cosine: rises to 1


class RAFT(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: RAFTConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        self.projector, dim = self._head(config.projector, features, config.projection_dim)
        self.predictor, _ = self._head(config.predictor, dim, dim)
        self.target_backbone = frozen_copy(self.backbone)
        self.target_projector = frozen_copy(self.projector)

    def _head(
        self, kind: Literal["mlp", "linear", "none"], features: int, dim: int
    ) -> tuple[nn.Module, int]:
        dims = [features, self.config.hidden_dim, dim]
        return build_head(kind, features, dim, lambda: mlp(dims, hidden_bias=True))

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        h1 = self.backbone(v1)
        y1, y2 = self.projector(h1), self.projector(self.backbone(v2))
        p1, p2 = self.predictor(y1), self.predictor(y2)
        with torch.no_grad():
            z1, z2 = (self.target_projector(self.target_backbone(v)) for v in (v1, v2))
        alignment = normalized_regression(p1, p2)  # both sides learn
        cross_model = (normalized_regression(p1, z1) + normalized_regression(p2, z2)) / 2
        weights = self.config.alignment_weight, self.config.cross_model_weight
        metrics = {
            **output_readings(y1),
            "alignment_loss": alignment.detach(),
            "cross_model_loss": cross_model.detach(),
        }
        loss = weights[0] * alignment - weights[1] * cross_model
        return StepOutput(loss, features=h1.detach(), metrics=metrics)

    def after_step(self, progress: Progress) -> None:
        decay = self.config.ema_decay
        if self.config.ema_schedule == "cosine":
            decay = cosine(decay, 1.0, progress.fraction)
        ema_update_(self.target_backbone, self.backbone, decay)
        ema_update_(self.target_projector, self.projector, decay)
