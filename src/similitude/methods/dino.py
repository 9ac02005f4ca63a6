"""DINO: self-distillation with no labels (Caron et al., ICCV 2021, arXiv:2104.14294).

    v1, v2 = t(x), t'(x); v3, ... = small crops     multi-crop: the target sees v1 and v2 alone
    s = projector(backbone(v))                      online ("student"): K logits
    t = target_projector(target_backbone(v))        target ("teacher"): no gradient
    loss = mean over t1, t2 and every other view of the cross-entropy of
           softmax((t - c) / t_target) to softmax(s / t_online)                 eqs. 1 and 3
    c <- m c + (1 - m) mean of t1 and t2            center, after the loss: eq. 4
    target <- l target + (1 - l) online             after the step; l rises to 1

Centering keeps one class from winning, the low temperature of the target (sharpening) keeps all
from being alike; each prevents the collapse that the other allows (Sec. 5.3, Fig. 7). Gradients
are clipped per parameter, and those of the last layer are dropped in the first epoch. The target
network is the better one and is kept.

Differs from the reference code (facebookresearch/dino): timm's ViT interpolates position embeddings
with anti-aliasing and starts the class token at std 1e-6, not 0.02; the peak of the learning rate
occurs once, not twice. As in the code, every parameter is clipped by its own norm, and class token
and position embedding decay.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from similitude.distributed import gather
from similitude.images.views import ImageViewConfig
from similitude.losses import self_distillation_before_logits
from similitude.memory import Center
from similitude.method import Batch, Method, MethodConfig, Progress, Prototypes, StepOutput, Width
from similitude.nets import (
    DINOHead,
    clip_each_,
    drop_gradients,
    ema_update_,
    frozen_copy,
    multi_crop_features,
    output_readings,
    without_drop_path,
)
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView
from similitude.schedules import cosine, linear

_VIEW1 = ImageViewConfig(
    crop_scale=(0.4, 1.0),  # (0.14, 1) without local views, and for ResNet-50
    interpolation="bicubic",
    jitter=(0.4, 0.4, 0.2, 0.1),
    jitter_probability=0.8,
    grey=0.2,
    blur=1.0,
)
_VIEW2 = _VIEW1.changed(blur=0.1, solarize=0.2)
_LOCAL = _VIEW1.changed(size=96, crop_scale=(0.05, 0.4), blur=0.5)
GLOBAL = 2  # views the target sees


class DINOConfig(MethodConfig):
    """Defaults are the reference code's for ImageNet and ViT-S/16 (Sec. 3.2, App. C)."""

    name: Literal["dino"] = "dino"
    title: ClassVar[str] = "DINO"
    view1: AnyView = _VIEW1
    view2: AnyView = _VIEW2
    local_view: AnyView = _LOCAL
    local_views: int = Field(default=8, ge=0)  # 10 in the paper's best runs; 0: no multi-crop
    hidden_dim: Width = 2048
    projector_layers: int = Field(default=3, ge=1)  # App. C
    projection_dim: Width = 256  # the bottleneck
    num_prototypes: Prototypes = 65_536  # K, classes that the network invents
    head_norm: bool = False  # BatchNorm in the head; a ViT has none anywhere
    norm_last_layer: bool = True  # False is better for ViT-S, and less stable
    freeze_last_layer_epochs: int = Field(default=1, ge=0)
    temperature: float = Field(default=0.1, gt=0)  # of the online network
    # Sharpening: lower than the online network's; equal: none. The paper warms up to 0.07.
    target_temperature: float = Field(default=0.04, gt=0)
    warmup_target_temperature: float = Field(default=0.04, gt=0)
    warmup_target_temperature_epochs: int = Field(default=0, ge=0)  # 30 in the paper
    centering: bool = True
    center_decay: float = Field(default=0.9, ge=0, le=1)  # m of eq. 4
    ema_decay: float = Field(default=0.996, ge=0, le=1)  # 0.9995 at batch 256; 0: no momentum
    ema_schedule: Literal["cosine", "constant"] = "cosine"  # cosine: rises to 1
    clip_norm: float | None = Field(default=3.0, gt=0)  # of each parameter's gradient
    evaluate: Literal["target", "online"] = "target"  # which network is kept

    @property
    def kept(self) -> str:
        """The network that is exported and evaluated; Fig. 6: the target leads all along."""
        return "target_backbone" if self.evaluate == "target" else "backbone"


class DINO(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: DINOConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = DINOHead(
            backbone.num_features,
            config.num_prototypes,
            hidden_dim=config.hidden_dim,
            bottleneck_dim=config.projection_dim,
            layers=config.projector_layers,
            norm=config.head_norm,
            norm_last_layer=config.norm_last_layer,
        )
        self.target_backbone = without_drop_path(frozen_copy(self.backbone))
        self.target_projector = frozen_copy(self.projector)
        self.center = Center(config.num_prototypes, config.center_decay)

    def views(self, facts: Any) -> MultiView:
        config = self.config
        kinds = [config.view1, config.view2, *[config.local_view] * config.local_views]
        return MultiView(*(kind.on(facts) for kind in kinds))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        config, views = self.config, batch.views
        with torch.no_grad():
            targets = multi_crop_features(self.target_backbone, views[:GLOBAL])
            targets = self.target_projector.bottleneck(targets)
            target_weight = self.target_projector.last_layer.weight
        h = multi_crop_features(self.backbone, views)
        z = self.projector.bottleneck(h).chunk(len(views))
        loss, entropy = self_distillation_before_logits(
            z,
            targets.chunk(GLOBAL),
            self.projector.last_layer.weight,
            target_weight,
            self.center.value,
            online_temperature=config.temperature,
            target_temperature=self._target_temperature(progress),
        )
        metrics = {
            **output_readings(z[0]),
            "target_entropy": entropy,
            "target_kl": loss.detach() - entropy,  # of the online network from the target
        }
        if config.centering:
            # Parts are equally large: the mean of their means is the mean of the whole batch. The
            # last layer is linear: it takes the mean to the mean of the logits.
            mean = gather(targets.mean(dim=0, keepdim=True)).mean(dim=0, keepdim=True)
            self.center.update(mean @ target_weight.T)
        return StepOutput(loss, features=h[: len(batch.index)].detach(), metrics=metrics)

    def _target_temperature(self, progress: Progress) -> float:
        config = self.config
        last = config.warmup_target_temperature_epochs - 1  # the epoch that reaches the end
        fraction = progress.epoch / last if last > 0 else float(progress.epoch > last)
        return linear(config.warmup_target_temperature, config.target_temperature, fraction)

    def before_step(self, progress: Progress) -> None:
        if self.config.clip_norm is not None:
            clip_each_(self.parameters(), self.config.clip_norm)
        if progress.epoch < self.config.freeze_last_layer_epochs:
            drop_gradients(self.projector.last_layer)

    def after_step(self, progress: Progress) -> None:
        decay = self.config.ema_decay
        if self.config.ema_schedule == "cosine":
            decay = cosine(decay, 1.0, progress.fraction)
        ema_update_(self.target_backbone, self.backbone, decay)
        ema_update_(self.target_projector, self.projector, decay)

    def chance_loss(self, batch_size: int) -> float:
        return math.log(self.config.num_prototypes)
