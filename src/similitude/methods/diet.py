"""DIET: the index of every image is its class (Balestriero, 2023, arXiv:2302.10260).

    h = backbone(t(x_i))                 one view; no projector, no second branch
    l = W h                              W [n, D]: linear, no bias, a row for each of the n images
    loss = cross-entropy(l, i)           Alg. 1 of the TMLR version; the code smooths labels by 0.8
    W learns with the backbone           and is thrown away

DIET-CP (Rodas et al., 2025, arXiv:2509.06990) is the same loss for continued pretraining, from
published weights and with some 1,000 images. As we read its code it divides the feature, a ViT's
class token, by its length (``normalize=True``), smooths labels by 0.3, and trains W alone for the
first 5 % of the epochs (``freeze_backbone=0.05``), so that a random W does not spoil the weights;
then all blocks, or the last few.

Differs from the published code, as we read it in public copies: views have no random erasing (a
quarter of them at its augmentation strength 3), nothing mixes images and labels (MixUp and CutMix
in DIET-CP), and BatchNorm sees the whole batch. As there, every parameter decays, W included.
"""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from similitude.images.views import ImageViewConfig
from similitude.losses import index_cross_entropy
from similitude.method import (
    BankRows,
    Batch,
    Changes,
    Method,
    MethodConfig,
    Progress,
    StepOutput,
    Width,
)
from similitude.nets import build_head, drop_gradients, output_readings
from similitude.nets.backbone import Backbone
from similitude.nets.views import joined
from similitude.sample import AnyView, MultiView


class DIETConfig(MethodConfig):
    """Defaults are DIET's, views of its augmentation strength 3."""

    name: Literal["diet"] = "diet"
    title: ClassVar[str] = "DIET"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.08, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.2),  # from strength 2 on
        jitter_probability=0.3,
        grey=0.2,
        blur=0.2,  # strength 3
        blur_sigma=(1.0, 2.0),
        blur_kernel=3 / 224,  # 3 pixels
    )
    num_views: int = Field(default=1, ge=1)  # of each image, each of which must be recognized
    num_samples: BankRows = 1_281_167  # rows of W; those of the run
    label_smoothing: float = Field(default=0.8, ge=0, lt=1)  # DIET-CP: 0.3
    projector: Literal["mlp", "linear", "none"] = "none"  # the paper does without
    projection_dim: Width = 128  # where there is a projector
    normalize: bool = False  # features have length 1 before W; DIET-CP: True
    temperature: float = Field(default=1.0, gt=0)
    freeze_backbone: float = Field(default=0.0, ge=0, lt=1)  # first share of the run; DIET-CP: 0.05

    def adapting(self) -> Changes:
        """As DIET-CP begins with published weights."""
        return {"label_smoothing": (0.3, "as DIET-CP"), "normalize": (True, "as DIET-CP")}


class DIET(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, as in the published code

    def __init__(self, backbone: Backbone, config: DIETConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        self.projector, dim = build_head(config.projector, features, config.projection_dim)
        self.classifier = nn.Linear(dim, config.num_samples, bias=False)  # W

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(*[view] * self.config.num_views)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        h = self.backbone(joined(batch.views))
        z = self.projector(h)
        loss = index_cross_entropy(
            F.normalize(z, dim=1) if self.config.normalize else z,
            self.classifier.weight,
            batch.index.repeat(len(batch.views)),
            label_smoothing=self.config.label_smoothing,
            temperature=self.config.temperature,
        )
        h1, z1 = (x.detach()[: len(batch.index)] for x in (h, z))
        metrics = {**output_readings(z1), "loss_floor": loss.new_full((), self._floor())}
        return StepOutput(loss, features=h1, metrics=metrics)

    def _floor(self) -> float:
        """The entropy of the smoothed target, below which no loss can be."""
        n, s = self.config.num_samples, self.config.label_smoothing
        own, other = 1 - s + s / n, s / n
        return -own * math.log(own) - ((n - 1) * other * math.log(other) if s else 0.0)

    def before_step(self, progress: Progress) -> None:
        if progress.fraction < self.config.freeze_backbone:
            drop_gradients(self.backbone)

    def chance_loss(self, batch_size: int) -> float:
        return math.log(self.config.num_samples)
