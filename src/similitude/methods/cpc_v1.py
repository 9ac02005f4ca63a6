"""CPC: contrastive predictive coding (van den Oord et al., 2018, arXiv:1807.03748), on images.

    x_rc = overlapping patches of one image, each changed on its own                 Sec. 3.2
    z_rc = backbone(x_rc)                                  latents
    c_rc = context(z of the rows down to r)                masked: no row below r
    p = W_k c_rc predicts z in row r + skip + k of the same column, for k = 1 .. K   eq. 3
    loss = -log( exp(p . z) / (exp(p . z) + sum over S negatives z' of exp(p . z') ) )   eq. 4
           mean over positions, then over k

Negatives are vectors of the rows that step k predicts, drawn from all images of the batch. With
``skip`` 1 the first predicted row shares no pixel with the context's last one. What is kept is the
backbone, averaged over the patches of an image.

The authors published no code. Where the paper is silent we follow Greedy InfoMax (loeweX): the
context network, skip, the number of negatives, which may hit the right vector, and the mean over k.

Differs from the paper: a fifth of the images are grey instead of all, so that the backbone takes
color; a border of the mean color pads the patches. The paper's network (the first three stages of
a ResNet-v2-101) has no normalization at all; any normalization within a patch, such as timm's
"groupnorm1", keeps what BatchNorm breaks: patches must not see each other but through the context.
"""

import math
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from similitude.distributed import gather, rank
from similitude.images.views import PatchViewConfig, cut_patches
from similitude.losses import cpc_info_nce, mean_over_bank_rows
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import GatedContext, PatchBackbone, output_std
from similitude.nets.backbone import Backbone
from similitude.randomness import uniform
from similitude.sample import MultiView


class CPCV1Config(MethodConfig):
    """Defaults are the paper's for ImageNet (Sec. 3.2), else those of Greedy InfoMax."""

    name: Literal["cpc_v1"] = "cpc_v1"
    title: ClassVar[str] = "CPC"
    view: PatchViewConfig = PatchViewConfig(
        crop_scale=(0.728, 0.728),  # 256 of 300 pixels
        grey=0.2,
        patch_size=64,
        grid=7,  # every 32 pixels of 256
        patch_crop=0.9375,  # 60 of 64 pixels
    )
    context_layers: int = Field(default=4, ge=0)  # rows above that a context sees; 0: none
    hidden_dim: Width = 256  # of a context
    prediction_steps: int = Field(default=5, ge=1)  # K
    skip: int = Field(default=1, ge=0)  # rows between context and the first prediction
    num_negatives: int = Field(default=16, ge=1)  # S
    negatives: Literal["batch", "same_image", "other_images"] = "batch"

    @model_validator(mode="after")
    def _grid_is_high_enough(self) -> "CPCV1Config":
        if self.view.grid <= self.skip + self.prediction_steps:
            raise ValueError(
                f"a grid of {self.view.grid} rows has no row {self.skip + self.prediction_steps} "
                "below another: lower prediction_steps or skip, or raise view.grid"
            )
        return self


class CPCV1(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: CPCV1Config) -> None:
        super().__init__()
        self.config = config
        features = backbone.num_features
        patches = {"patch_size": config.view.patch_size, "grid": config.view.grid}
        self.backbone = PatchBackbone(backbone, partial(cut_patches, **patches))
        self.context = GatedContext(features, config.hidden_dim, config.context_layers)
        self.predictor = nn.ModuleList(
            nn.Linear(config.hidden_dim, features, bias=False)
            for _ in range(config.prediction_steps)
        )

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        latents = self.backbone(batch.views[0])
        contexts, targets = self.context(latents), gather(latents)
        steps = range(1, self.config.prediction_steps + 1)
        losses = [self._loss(contexts, targets, k, progress) for k in steps]
        metrics = {"projection_std": output_std(latents.detach().flatten(0, 2))}
        features = latents.detach().mean(dim=(1, 2))
        return StepOutput(torch.stack(losses).mean(), features=features, metrics=metrics)

    def _loss(
        self,
        contexts: Float[Tensor, "N R C E"],
        targets: Float[Tensor, "M R C D"],
        k: int,
        progress: Progress,
    ) -> Tensor:
        """Of step k: contexts of this process, targets of all M images of the batch."""
        ahead = self.config.skip + k
        predictions = self.predictor[k - 1](contexts[:, :-ahead]).flatten(0, 2)
        each = (contexts.shape[1] - ahead) * contexts.shape[2]  # predictions of an image
        pool = targets[:, ahead:].flatten(0, 2)
        own = torch.arange(len(predictions), device=pool.device) + rank() * len(predictions)
        candidates = torch.cat([own[:, None], self._draw(own, each, len(pool), k, progress)], dim=1)
        return mean_over_bank_rows(cpc_info_nce, predictions, pool, candidates)

    def _draw(
        self, own: Int[Tensor, " P"], each: int, total: int, k: int, progress: Progress
    ) -> Int[Tensor, "P S"]:
        """Rows among the ``total`` targets, of which ``each`` belong to one image.

        A function of the optimizer's step, k and the position in the whole batch.
        """
        first = own - own % each  # target of the same image
        start, count = {
            "batch": (0, total),
            "same_image": (0, each),
            "other_images": (each, total - each),
        }[self.config.negatives]
        numbers = uniform(0, progress.step, own, k, "negatives", self.config.num_negatives)
        return (first[:, None] + start + (numbers * count).long()) % total

    def chance_loss(self, batch_size: int) -> float:
        return math.log(1 + self.config.num_negatives)
