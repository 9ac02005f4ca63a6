"""SimSiam: simple siamese representation learning (Chen & He, CVPR 2021, arXiv:2011.10566).

    v1, v2 = t(x), t(x)                  MoCo v2's transforms
    z = projector(backbone(v))
    p = predictor(z)
    loss = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2     eq. 2; D = negative cosine, eq. 1; sg = stop

The predictor's learning rate stays at its peak (Sec. 4.2, "predictor with constant lr"), and
weight decay acts on every parameter, BatchNorm included, as in the reference code.

``alternating_steps`` = k > 1 is the multi-step alternation of Sec. 5.2: the targets of k steps are
those of the network at the first of them, whose copy stands still until then.

Differs from the reference code (facebookresearch/simsiam): hidden layers of the projector are as
wide as the projections (2,048, as in the paper); the code's as the backbone's features, which is
the same for a ResNet-50 alone. As in the code, and unlike the paper's text, the projector's last
BatchNorm has no affine parameters, and the last Linear before it keeps a bias that is never
trained.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from similitude.images.views import ImageViewConfig
from similitude.losses import channel_cross_entropy, negative_cosine
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import (
    UnitBias,
    build_head,
    ema_update_,
    frozen_copy,
    mlp,
    output_readings,
    prediction_gap,
)
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView


class SimSiamConfig(MethodConfig):
    """Defaults are the paper's for ImageNet and ResNet-50 (Sec. 3, App. A)."""

    name: Literal["simsiam"] = "simsiam"
    title: ClassVar[str] = "SimSiam"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grey=0.2,
        blur=0.5,
    )
    projector: Literal["mlp", "linear", "none"] = "mlp"
    projector_layers: int = Field(default=3, ge=2)  # 2 for CIFAR-10 (App. D)
    projection_dim: Width = 2048
    # Tab. 1; fixed: random, never trained; bias: unit(z) + b (arXiv:2203.16262, Sec. 4)
    predictor: Literal["mlp", "none", "fixed", "bias"] = "mlp"
    predictor_hidden: Width = 512
    fixed_predictor_lr: bool = True  # the predictor's rate does not decay
    head_norm: bool | Literal["group"] = True  # BatchNorm in projector and predictor (Tab. 3)
    similarity: Literal["cosine", "cross_entropy"] = "cosine"  # Sec. 4.5
    stop_gradient: bool = True  # Fig. 2: without it the outputs collapse
    symmetric: bool = True  # Sec. 4.6: both directions, or p1 against z2 alone
    alternating_steps: int = Field(default=1, ge=1)  # Sec. 5.2: against targets of one network

    @model_validator(mode="after")
    def _targets_are_fixed(self) -> "SimSiamConfig":
        if self.alternating_steps > 1 and not self.stop_gradient:
            raise ValueError(
                "alternating_steps above 1 fixes the targets, and stop_gradient=false lets them "
                "learn: give one of them"
            )
        return self


class SimSiam(Method):
    """See the module's docstring."""

    wants_batchnorm = True  # arXiv:2103.03166 on SimSiam

    def __init__(self, backbone: Backbone, config: SimSiamConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        self.projector, self.dim = build_head(
            config.projector, features, config.projection_dim, lambda: self._projector(features)
        )
        self.predictor = self._predictor(self.dim)
        if config.alternating_steps > 1:
            self.target_backbone = frozen_copy(self.backbone)
            self.target_projector = frozen_copy(self.projector)

    def _projector(self, features: int) -> nn.Module:
        config = self.config
        dims = [features] + [config.projection_dim] * config.projector_layers
        if not config.head_norm:
            return mlp(dims, norm=False)
        head = mlp(dims, norm=config.head_norm, last_norm="plain", last_bias=True)
        # BatchNorm behind it cancels a bias
        head[-2].bias.requires_grad_(config.head_norm == "group")
        return head

    def _predictor(self, dim: int) -> nn.Module:
        config = self.config
        if config.predictor == "none":
            return nn.Identity()
        if config.predictor == "bias":
            return UnitBias(dim)
        predictor = mlp([dim, config.predictor_hidden, dim], norm=config.head_norm)
        return predictor.requires_grad_(config.predictor != "fixed")

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        h1 = self.backbone(v1)
        z1, z2 = self.projector(h1), self.projector(self.backbone(v2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        metrics = output_readings(z1, prediction_gap(z1, p1))
        if self.config.alternating_steps > 1:
            z1, z2 = self._fixed_target(v1), self._fixed_target(v2)
        elif self.config.stop_gradient:
            z1, z2 = z1.detach(), z2.detach()
        distance = negative_cosine if self.config.similarity == "cosine" else channel_cross_entropy
        loss = distance(p1, z2)
        if self.config.symmetric:
            loss = (loss + distance(p2, z1)) / 2
        return StepOutput(loss, features=h1.detach(), metrics=metrics)

    @torch.no_grad()
    def _fixed_target(self, view: Any) -> Tensor:
        """Projections of the network as it was when these steps began, by their own statistics."""
        return self.target_projector(self.target_backbone(view))

    def after_step(self, progress: Progress) -> None:
        steps = self.config.alternating_steps
        if steps > 1 and (progress.step + 1) % steps == 0:
            ema_update_(self.target_backbone, self.backbone, 0.0)
            ema_update_(self.target_projector, self.projector, 0.0)

    def chance_loss(self, batch_size: int) -> float:
        if self.config.similarity == "cross_entropy":
            return math.log(self.dim)  # all channels alike
        return 0.0  # the cosine of unrelated vectors

    def param_groups(self) -> list[dict[str, Any]]:
        trained = [p for p in self.parameters() if p.requires_grad]
        predictor = [p for p in self.predictor.parameters() if p.requires_grad]
        of_predictor = {id(p) for p in predictor}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if id(p) not in of_predictor]},
            {"params": predictor, "fixed_lr": self.config.fixed_predictor_lr},
        ]
        return [group for group in groups if group["params"]]
