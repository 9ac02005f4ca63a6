"""CPC v2: data-efficient recognition (Henaff et al., ICML 2020, arXiv:1905.09272).

    x_rc = overlapping patches of one image, each changed on its own               Sec. 2.1, App. A
    z_rc = backbone(x_rc)                                  latents
    c_rc = context(z of the rows down to r)                masked: no row below r
    p = scale (W_k c_rc + b_k) predicts t = W z + b in row r + skip + k, for k = 1 .. K
    loss = sum over k of the cross-entropy of p . t against the targets of the whole batch

The same again with the image turned by a half and by quarters: context from below, from the left
and from the right, each with heads of its own; the mean over directions. What is kept is the
backbone, averaged over the patches of an image.

The authors published pseudocode and no code. It is followed for context, heads, scale and loss;
there its loop over k covers one step only, ``range(2, 3)``, which is ``skip`` 2 and
``prediction_steps`` 1. The default of three steps is the reading of most who rebuilt it.

Differs from the paper: patches are flipped, greyed, jittered in color, and robbed of two channels;
shear, rotation and elastic deformation are left out. The paper's ResNet-161 is any timm network;
layer normalization of a whole patch, as the paper has it, is timm's norm layer "groupnorm1".
"""

import math
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from similitude.distributed import gather, rank
from similitude.images.views import PatchViewConfig, cut_patches
from similitude.losses import cpc_shared_info_nce
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import PatchBackbone, ResidualContext, output_std
from similitude.nets.backbone import Backbone
from similitude.sample import MultiView

QUARTER_TURNS = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3)}


class CPCV2Config(MethodConfig):
    """Defaults are the paper's for ImageNet (Sec. 3.1, App. A)."""

    name: Literal["cpc_v2"] = "cpc_v2"
    title: ClassVar[str] = "CPC v2"
    view: PatchViewConfig = PatchViewConfig(
        crop_scale=(0.751, 0.751),  # 260 of 300 pixels
        patch_size=80,
        grid=6,  # every 36 pixels of 260
        patch_crop=1.0,
        patch_flip=0.5,
        patch_jitter=(0.4, 0.4, 0.4, 0.1),
        patch_jitter_probability=0.8,
        patch_grey=0.25,
        patch_drop=0.5,
    )
    context_layers: int = Field(default=5, ge=0)  # rows above that a context sees; 0: none
    hidden_dim: Width = 256  # inside the context network
    projection_dim: Width = 64  # of targets and predictions
    prediction_scale: float = Field(default=0.1, gt=0)
    prediction_steps: int = Field(default=3, ge=1)  # K; 1 in the pseudocode as printed
    skip: int = Field(default=2, ge=0)  # rows between context and the first prediction
    directions: Literal[1, 2, 4] = 4  # down; and up; and left and right (Sec. 4.1)

    @model_validator(mode="after")
    def _grid_is_high_enough(self) -> "CPCV2Config":
        if self.view.grid <= self.skip + self.prediction_steps:
            raise ValueError(
                f"a grid of {self.view.grid} rows has no row {self.skip + self.prediction_steps} "
                "below another: lower prediction_steps or skip, or raise view.grid"
            )
        return self


class Predictions(nn.Module):
    """The heads of one direction: a context, the targets, and a prediction for every step."""

    def __init__(self, features: int, config: CPCV2Config) -> None:
        super().__init__()
        self.context = ResidualContext(features, config.hidden_dim, config.context_layers)
        self.target = nn.Linear(features, config.projection_dim)
        self.steps = nn.ModuleList(
            nn.Linear(features, config.projection_dim) for _ in range(config.prediction_steps)
        )
        self.scale = config.prediction_scale
        self.skip = config.skip

    def forward(
        self, latents: Float[Tensor, "N R C D"]
    ) -> tuple[Float[Tensor, "N R C P"], list[Float[Tensor, "N _ C P"]]]:
        """Targets, and for each step k the predictions of the rows from skip + k on."""
        contexts = self.context(latents)
        predictions = [
            self.scale * step(contexts[:, : -(self.skip + k)])
            for k, step in enumerate(self.steps, start=1)
        ]
        return self.target(latents), predictions


class CPCV2(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: CPCV2Config) -> None:
        super().__init__()
        self.config = config
        features = backbone.num_features
        patches = {"patch_size": config.view.patch_size, "grid": config.view.grid}
        self.backbone = PatchBackbone(backbone, partial(cut_patches, **patches))
        self.turns = QUARTER_TURNS[config.directions]
        self.predictor = nn.ModuleList(Predictions(features, config) for _ in self.turns)

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        latents = self.backbone(batch.views[0])
        losses = [
            self._loss(*predict(torch.rot90(latents, turns, dims=(1, 2))))
            for turns, predict in zip(self.turns, self.predictor, strict=True)
        ]
        metrics = {"projection_std": output_std(latents.detach().flatten(0, 2))}
        features = latents.detach().mean(dim=(1, 2))
        return StepOutput(torch.stack(losses).mean(), features=features, metrics=metrics)

    def _loss(
        self, targets: Float[Tensor, "N R C P"], predictions: list[Float[Tensor, "N _ C P"]]
    ) -> Tensor:
        """Of one direction: the sum over its steps."""
        n, rows, columns = targets.shape[:3]
        candidates = gather(targets).flatten(0, 2)
        number = torch.arange(n * rows * columns, device=targets.device).view(n, rows, columns)
        number = number + rank() * number.numel()  # of each target among the candidates
        losses = [
            cpc_shared_info_nce(p.flatten(0, 2), candidates, number[:, -p.shape[1] :].flatten())
            for p in predictions
        ]
        return torch.stack(losses).sum()

    def chance_loss(self, batch_size: int) -> float:
        return self.config.prediction_steps * math.log(batch_size * self.config.view.grid**2)
