"""MoCo v3: training self-supervised vision transformers (Chen et al., ICCV 2021, arXiv:2104.02057).

    v1, v2 = t(x), t'(x)                 two families of transforms, those of BYOL
    q = predictor(projector(backbone(v)))            query: online
    k = target_projector(target_backbone(v))         key: no gradient, of all processes
    loss = ctr(q1, k2) + ctr(q2, k1)     Alg. 1; ctr = 2 tau InfoNCE among the keys of the batch
    target <- m target + (1 - m) online              m from 0.99 to 1 along a cosine

No queue. The factor 2 tau keeps the gradient's size when tau changes.

A vision transformer gets fixed 2-D sine and cosine positions, first weights after Xavier, and a
random patch embedding that is never trained: trained, its gradient has spikes that pull the
accuracy down (Sec. 4.2). Other backbones are left as they are. The defaults are those for
ResNet-50; those for a ViT are in the recipe ``imagenet.moco_v3_vit``.

Differs from the reference code (facebookresearch/moco-v3): the target moves after the optimizer
step instead of before the next keys are encoded, with the decay of that next step: the same
weights are read. The paper's "f_q" is our online network, its "f_k" our target.
"""

from math import log
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from similitude.distributed import gather, own_share
from similitude.images.views import ImageViewConfig
from similitude.images.vit import set_sincos_positions_, xavier_init_
from similitude.losses import in_batch_info_nce, repulsion
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import ema_update_, frozen_copy, mlp, output_readings
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView
from similitude.schedules import cosine

_VIEW1 = ImageViewConfig(
    crop_scale=(0.2, 1.0),  # 0.08 for a ViT
    jitter=(0.4, 0.4, 0.2, 0.1),
    jitter_probability=0.8,
    grey=0.2,
    blur=1.0,
)
_VIEW2 = _VIEW1.changed(blur=0.1, solarize=0.2)


class MoCoV3Config(MethodConfig):
    """Defaults are the reference code's for ImageNet, ResNet-50, 100 and 300 epochs."""

    name: Literal["moco_v3"] = "moco_v3"
    title: ClassVar[str] = "MoCo v3"
    view1: AnyView = _VIEW1
    view2: AnyView = _VIEW2
    projector_layers: int = Field(default=2, ge=1)  # 3 for a ViT
    predictor: Literal["mlp", "none"] = "mlp"  # Sec. 6.2: without it slightly worse, no collapse
    predictor_last_norm: bool = False  # BatchNorm without affine part at its end; True for a ViT
    hidden_dim: Width = 4096  # of the projector and of the predictor
    projection_dim: Width = 256
    temperature: float = Field(default=1.0, gt=0)  # 0.2 for a ViT
    ema_decay: float = Field(default=0.99, ge=0, le=1)  # 0.996 for 1000 epochs
    ema_schedule: Literal["cosine", "constant"] = "cosine"  # cosine: rises to 1
    symmetric: bool = True  # both directions, summed
    frozen_patch_embedding: bool = True  # of a ViT, Sec. 4.2
    positions: Literal["sincos", "learned", "none"] = "sincos"  # of a ViT, Sec. 6.2


class MoCoV3(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: MoCoV3Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        if isinstance(backbone, VisionTransformer):
            self._prepare(backbone)
        features = backbone.num_features
        dim, hidden = config.projection_dim, config.hidden_dim
        widths = [hidden] * (config.projector_layers - 1)
        self.projector = mlp([features, *widths, dim], last_norm="plain")
        self.predictor: nn.Module = nn.Identity()
        if config.predictor == "mlp":
            self.predictor = mlp(
                [dim, hidden, dim],
                last_norm="plain" if config.predictor_last_norm else "none",
                last_bias=False,
            )
        self.target_backbone = frozen_copy(self.backbone)
        self.target_projector = frozen_copy(self.projector)

    def _prepare(self, vit: VisionTransformer) -> None:
        vit.patch_embed.requires_grad_(not self.config.frozen_patch_embedding)
        if getattr(vit, "has_pretrained_weights", False):
            return
        xavier_init_(vit)
        if self.config.positions == "sincos":
            set_sincos_positions_(vit)
        elif self.config.positions == "none" and vit.pos_embed is not None:
            nn.init.zeros_(vit.pos_embed.requires_grad_(False))

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view1.on(facts), self.config.view2.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        h1 = self.backbone(v1)
        z1 = self.projector(h1)
        q1, keys = self.predictor(z1), self._keys(v2)
        loss = self._contrast(q1, keys)
        if self.config.symmetric:
            q2 = self.predictor(self.projector(self.backbone(v2)))
            loss = loss + self._contrast(q2, self._keys(v1))
        extra = repulsion(q1, keys, temperature=self.config.temperature, left_out=(0,))
        return StepOutput(loss, features=h1.detach(), metrics=output_readings(z1, extra))

    @torch.no_grad()
    def _keys(self, view: Any) -> Tensor:
        return self.target_projector(self.target_backbone(view))

    def _contrast(self, query: Tensor, key: Tensor) -> Tensor:
        temperature = self.config.temperature
        nce = in_batch_info_nce(
            gather(query), gather(key), temperature=temperature, share=own_share()
        )
        return 2 * temperature * nce

    def after_step(self, progress: Progress) -> None:
        decay = self.config.ema_decay
        if self.config.ema_schedule == "cosine":  # the target is for the next step
            decay = cosine(decay, 1.0, (progress.step + 1) / progress.total_steps)
        ema_update_(self.target_backbone, self.backbone, decay)
        ema_update_(self.target_projector, self.projector, decay)

    def chance_loss(self, batch_size: int) -> float:
        directions = 2 if self.config.symmetric else 1
        return directions * 2 * self.config.temperature * log(batch_size)

    def param_groups(self) -> list[dict[str, Any]]:
        # One group: AdamW decays every parameter in the reference code, and LARS spares 1-D
        # tensors by itself.
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]
