"""BYOL: bootstrap your own latent (Grill et al., NeurIPS 2020, arXiv:2006.07733).

    v1, v2 = t(x), t'(x)                 two families of transforms (Tab. 6)
    p = predictor(projector(backbone(v)))            online network
    z = target_projector(target_backbone(v))         no gradient
    loss = |p1 - z2|^2 + |p2 - z1|^2     unit vectors, eq. 2, both orders
    target <- tau target + (1 - tau) online          after the online step; tau from 0.996 to 1

Differs from the reference code (deepmind-research/byol): the target starts as a copy of the online
network; the code draws its own initial weights. Jitter is torchvision's (the code: added
brightness, contrast around the mean of each channel, saturation in HSV), and blur reflects at the
border. Crops that do not fit are clamped to the image, as there.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from similitude.images.views import ImageViewConfig
from similitude.losses import normalized_regression
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import (
    build_head,
    ema_update_,
    frozen_copy,
    mlp,
    output_readings,
    prediction_gap,
)
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView
from similitude.schedules import cosine

_VIEW1 = ImageViewConfig(
    crop_scale=(0.08, 1.0),
    crop_attempts=0,
    interpolation="bicubic",
    jitter=(0.4, 0.4, 0.2, 0.1),
    jitter_probability=0.8,
    grey=0.2,
    blur=1.0,
    blur_kernel=0.1,  # of the image's height
)
_VIEW2 = _VIEW1.changed(blur=0.1, solarize=0.2)


class BYOLConfig(MethodConfig):
    """Defaults are the paper's for ImageNet, ResNet-50, 1000 epochs (Sec. 3.2, App. B)."""

    name: Literal["byol"] = "byol"
    title: ClassVar[str] = "BYOL"
    view1: AnyView = _VIEW1
    view2: AnyView = _VIEW2
    projector: Literal["mlp", "linear", "none"] = "mlp"
    predictor: Literal["mlp", "none", "fixed"] = "mlp"  # Tab. 5; fixed: random, never trained
    hidden_dim: Width = 4096  # of the projector and of the predictor
    projection_dim: Width = 256
    head_norm: bool | Literal["group"] = True  # BatchNorm in projector and predictor
    ema_decay: float = Field(default=0.996, ge=0, le=1)  # tau_base; 0.99 for 300 epochs
    ema_schedule: Literal["cosine", "constant"] = "cosine"  # cosine: rises to 1
    symmetric: bool = True  # both directions, or p1 against z2 alone


class BYOL(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: BYOLConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        self.projector, dim = build_head(
            config.projector,
            features,
            config.projection_dim,
            lambda: self._head(features, config.projection_dim),
        )
        self.predictor = self._predictor(dim)
        self.target_backbone = frozen_copy(self.backbone)
        self.target_projector = frozen_copy(self.projector)

    def _predictor(self, dim: int) -> nn.Module:
        if self.config.predictor == "none":
            return nn.Identity()
        return self._head(dim, dim).requires_grad_(self.config.predictor != "fixed")

    def _head(self, features: int, dim: int) -> nn.Sequential:
        config = self.config
        dims = [features, config.hidden_dim, dim]
        return mlp(dims, norm=config.head_norm, hidden_bias=True, last_bias=False)

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view1.on(facts), self.config.view2.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        h1 = self.backbone(v1)
        y1 = self.projector(h1)
        p1 = self.predictor(y1)
        metrics = output_readings(y1, prediction_gap(y1, p1))
        with torch.no_grad():
            z2 = self.target_projector(self.target_backbone(v2))
        loss = normalized_regression(p1, z2)
        if self.config.symmetric:
            p2 = self.predictor(self.projector(self.backbone(v2)))
            with torch.no_grad():
                z1 = self.target_projector(self.target_backbone(v1))
            loss = loss + normalized_regression(p2, z1)
        return StepOutput(loss, features=h1.detach(), metrics=metrics)

    def after_step(self, progress: Progress) -> None:
        decay = self.config.ema_decay
        if self.config.ema_schedule == "cosine":
            decay = cosine(decay, 1.0, progress.fraction)
        ema_update_(self.target_backbone, self.backbone, decay)
        ema_update_(self.target_projector, self.projector, decay)

    def chance_loss(self, batch_size: int) -> float:
        return 4.0 if self.config.symmetric else 2.0  # unrelated unit vectors
