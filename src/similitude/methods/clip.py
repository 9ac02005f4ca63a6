"""CLIP: contrastive language-image pretraining (Radford et al., 2021, arXiv:2103.00020).

    h = towers(x)                      one network for each sensor: photo | text
    z_s = unit(projector_s(h_s))       linear                                            Fig. 3
    logits = exp(t) z_a . z_b          t is learned; exp(t) is 100 at most
    loss = (CE(logits, i) + CE(logits^T, i)) / 2
    loss = -log sigmoid(y (logits + b))      y = 1 for i = j, -1 otherwise (SigLIP, 2023)

Of more than two sensors the loss is the mean over all pairs. A sample without an entry of one of a
pair's sensors is left out of that pair. Differs from the paper: any sensors, not only photos with
texts; mean of the tokens in the place of the last one.
"""

import math
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.distributed import gather, own_share
from similitude.errors import UserError
from similitude.losses import matched_sigmoid, matched_softmax
from similitude.method import (
    SENSORS_NEEDED,
    Batch,
    Method,
    MethodConfig,
    Progress,
    StepOutput,
    Width,
)
from similitude.multimodal.networks import Towers
from similitude.multimodal.views import SensorViewConfig
from similitude.nets import worst_readings
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView


class CLIPConfig(MethodConfig):
    """Defaults are the paper's (Sec. 2.5), and SigLIP's for its loss (Sec. 3)."""

    name: Literal["clip"] = "clip"
    title: ClassVar[str] = "CLIP"
    compares_sensors: ClassVar[bool] = True
    view: AnyView = SensorViewConfig()
    projection_dim: Width = 512
    loss: Literal["softmax", "sigmoid"] = "softmax"
    # Of the logits, at the beginning; None: 1 / 0.07 for softmax, 10 for sigmoid.
    scale: float | None = Field(default=None, gt=0)
    largest_scale: float = Field(default=100.0, gt=0)
    bias: float = -10.0  # of the logits for sigmoid, at the beginning


class CLIP(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: CLIPConfig) -> None:
        super().__init__()
        if not isinstance(backbone, Towers) or len(backbone.widths) < 2:
            raise UserError(f"clip compares sensors: {SENSORS_NEEDED}")
        self.config = config
        self.backbone: Towers = backbone
        self.projectors = nn.ModuleDict(
            {
                name: nn.Linear(width, config.projection_dim, bias=False)
                for name, width in backbone.widths.items()
            }
        )
        usual = 1 / 0.07 if config.loss == "softmax" else 10.0
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale or usual)))
        if config.loss == "sigmoid":
            self.bias = nn.Parameter(torch.tensor(config.bias))

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view.on(facts))

    def embeddings(self, inputs: Any) -> dict[str, Float[Tensor, "N P"]]:
        """The unit vectors of every sensor that is there, near of entries that belong together."""
        return self._projected(self.backbone.parts(inputs))

    def _projected(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: F.normalize(self.projectors[name](h), dim=1) for name, h in parts.items()}

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        config, inputs = self.config, batch.views[0]
        parts = self.backbone.parts(inputs)
        z = self._projected(parts)
        everyone = {name: gather(own) for name, own in z.items()}
        there = {name: gather(inputs.present[name]) for name in z}
        scale = self.log_scale.exp().clamp_max(config.largest_scale)
        losses = []
        for a, b in combinations(z, 2):
            options = {"scale": scale, "valid": there[a] & there[b], "share": own_share()}
            if config.loss == "softmax":
                losses.append(matched_softmax(everyone[a], everyone[b], **options))
            else:
                losses.append(matched_sigmoid(everyone[a], everyone[b], bias=self.bias, **options))
        metrics = {**worst_readings(list(z.values())), "scale": scale.detach()}
        if config.loss == "softmax":  # of as many pairs as are whole
            pairs = [(there[a] & there[b]).sum().clamp_min(1) for a, b in combinations(z, 2)]
            metrics["chance_loss"] = torch.stack(pairs).float().log().mean()
        features = torch.cat([parts[name].detach() for name in self.backbone.kept], dim=1)
        return StepOutput(torch.stack(losses).mean(), features, metrics)

    def chance_loss(self, batch_size: int) -> float | None:
        return math.log(batch_size) if self.config.loss == "softmax" else None
