"""BYOL-A: BYOL for sounds (Niizumi et al., IJCNN 2021, arXiv:2103.06695; v2: arXiv:2204.07402).

    v1, v2 = t(x), t(x)                  one clip twice: cut, log-mel, mix, resize, fade (v2)
    v1, v2 <- to mean 0, std 1           over both views of the batch
    p = predictor(projector(backbone(v)))            online network
    z = target_projector(target_backbone(v))         no gradient
    loss = |p1 - z2|^2 + |p2 - z1|^2     unit vectors, both orders
    target <- 0.99 target + 0.01 online              after the online step

Both versions are this method: the second differs in its views (a share of 0.2 is mixed in and a
fader added, where the first mixes 0.4) and in its network. Written from the papers. Differs from
them: what is mixed in is any clip of the data set, not one of the last 2,048; see the view.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from similitude.audio.views import AudioViewConfig
from similitude.losses import normalized_regression
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import ema_update_, frozen_copy, mlp, output_readings, prediction_gap
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView


class BYOLAConfig(MethodConfig):
    """Defaults are the first paper's for AudioSet, 100 epochs (Sec. IV-A)."""

    name: Literal["byol_a"] = "byol_a"
    title: ClassVar[str] = "BYOL-A"
    view: AnyView = AudioViewConfig(seconds=0.95)
    hidden_dim: Width = 4096  # of the projector and of the predictor
    projection_dim: Width = 256
    ema_decay: float = Field(default=0.99, ge=0, le=1)


class BYOLA(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: BYOLAConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        hidden, dim = config.hidden_dim, config.projection_dim
        self.projector = mlp([backbone.num_features, hidden, dim], hidden_bias=True)
        self.predictor = mlp([dim, hidden, dim], hidden_bias=True)
        self.target_backbone = frozen_copy(self.backbone)
        self.target_projector = frozen_copy(self.projector)

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        h1 = self.backbone(v1)
        y1, y2 = self.projector(h1), self.projector(self.backbone(v2))
        with torch.no_grad():
            z1 = self.target_projector(self.target_backbone(v1))
            z2 = self.target_projector(self.target_backbone(v2))
        p1 = self.predictor(y1)
        loss = normalized_regression(p1, z2)
        loss = loss + normalized_regression(self.predictor(y2), z1)
        return StepOutput(loss, h1.detach(), output_readings(y1, prediction_gap(y1, p1)))

    def after_step(self, progress: Progress) -> None:
        ema_update_(self.target_backbone, self.backbone, self.config.ema_decay)
        ema_update_(self.target_projector, self.projector, self.config.ema_decay)

    def chance_loss(self, batch_size: int) -> float:
        return 4.0  # unrelated unit vectors
