"""The memory bank that MoCo is compared with (He et al., CVPR 2020, arXiv:1911.05722, Fig. 2b).

    q = unit(projector(backbone(t(x_i))))        query, the only network
    k = bank[i]                                  key: what this image gave in earlier epochs
    n = bank[K rows drawn for this batch]        negatives
    loss = InfoNCE(q, k, n)                      eq. 1, as MoCo
    bank[i] <- unit(m bank[i] + (1 - m) q)       after the loss has read it

One of three ways to keep a dictionary of keys (Sec. 3.1, "Relations to previous mechanisms");
``end_to_end`` and ``moco_v1`` are the others. Here the average runs over representations instead of
over the weights of a network, so keys are as old as the last visit of their image.

Differs from the reference code: the authors published none. From the text: the dictionary is drawn
once for each batch. Bank, its start and its average are InstDisc's, from which the paper takes it;
the draw is a function of the step, with replacement, and does not exclude the batch's images.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from similitude.distributed import gather
from similitude.images.views import ImageViewConfig
from similitude.losses import info_nce, repulsion
from similitude.memory import MemoryBank
from similitude.method import (
    BankRows,
    Batch,
    Method,
    MethodConfig,
    Negatives,
    Progress,
    StepOutput,
    Width,
)
from similitude.nets import build_head, output_readings
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView


class MemoryBankConfig(MethodConfig):
    """Defaults are those of MoCo v1, which the paper keeps equal (Sec. 4.1)."""

    name: Literal["memory_bank"] = "memory_bank"
    title: ClassVar[str] = "Memory bank"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.4),  # v2: hue 0.1, probability 0.8, blur 0.5
        jitter_probability=1.0,
        grey=0.2,
        blur=0.0,
    )
    num_samples: BankRows = 1_281_167  # rows of the bank; those of the run
    projector: Literal["mlp", "linear", "none"] = "linear"  # v2: mlp
    projection_dim: Width = 128
    temperature: float = Field(default=0.07, gt=0)  # v2: 0.2
    num_negatives: Negatives = 65_536  # Fig. 3: 256 to 65,536
    ema_decay: float = Field(default=0.5, ge=0, le=1)  # of a row of the bank, as in InstDisc


class MemoryBankContrast(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, as in MoCo's code

    def __init__(self, backbone: Backbone, config: MemoryBankConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        self.projector, dim = build_head(config.projector, features, config.projection_dim)
        self.bank = MemoryBank(config.num_samples, dim)

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        (view,) = batch.views
        h = self.backbone(view)
        z = self.projector(h)
        q = F.normalize(z, dim=1)
        dictionary = torch.arange(self.config.num_negatives, device=q.device)
        drawn = self.bank.draw(dictionary, 1, step=progress.step).squeeze(1)
        k, negatives = self.bank.features[batch.index], self.bank.features[drawn]
        loss = info_nce(q, k, negatives, temperature=self.config.temperature)
        self.bank.update(gather(batch.index), gather(q.detach()), self.config.ema_decay)
        extra = repulsion(q, negatives, temperature=self.config.temperature)
        metrics = {
            **output_readings(z, extra),
            "bank_similarity": F.cosine_similarity(q.detach(), k).mean(),
        }
        return StepOutput(loss, features=h.detach(), metrics=metrics)

    def chance_loss(self, batch_size: int) -> float:
        return math.log(1 + self.config.num_negatives)
