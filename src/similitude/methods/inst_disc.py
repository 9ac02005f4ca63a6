"""InstDisc: non-parametric instance discrimination (Wu et al., CVPR 2018, arXiv:1805.01978).

    v = unit(projector(backbone(t(x_i))))
    b = rows of the bank: b_i of the image itself, b_1 .. b_K drawn uniformly from all n
    P(j | v) = exp(b_j . v / t) / Z      eq. 4; Z = n mean exp(b . v / t), from the first batch
    h(j, v) = P / (P + K / n)            eq. 6: is v of image j, and not noise?
    loss = -log h(i, v) - sum over the K of log(1 - h(j, v))                eq. 7
           + proximal_weight |v - b_i|^2                                    eq. 9
    b_i <- unit(m b_i + (1 - m) v)       after the loss has read it

With ``loss="softmax"`` the K are all n images (eq. 2 and 3), as the authors train on CIFAR-10;
"parametric" replaces the bank by a trained vector for each image (eq. 1).

``normalizer_decay`` below 1 lets Z follow: Z <- decay Z + (1 - decay) n mean exp(b . v / t), before
the loss of every batch (He on CMC's code, github.com/HobbitLong/CMC/issues/23: 0.99). The noise
pushes with weights that sum to about the true Z over the one in use: a constant from a random bank
is a hundred times too small as soon as the bank holds features, which are all alike at first.

Differs from the reference code (zhirongw/lemniscate.pytorch): grey comes after the jitter, not
before; BatchNorm sees the whole batch, not the part of one GPU. A step's noise is a function of
step and image, not of a global random state. As in the code, and unlike the paper's text, the bank
moves by half of the way, the proximal term is off, the noise may hit the image itself, and the
denominators of eq. 6 hold 1e-7 more.
"""

import math
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.distributed import gather, mean_over_processes
from similitude.images.views import ImageViewConfig
from similitude.losses import (
    instance_nce,
    instance_normalizer,
    instance_softmax,
    mean_over_bank_rows,
)
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


class InstDiscConfig(MethodConfig):
    """Defaults are the authors' for ImageNet (Sec. 4.2 and their commands)."""

    name: Literal["inst_disc"] = "inst_disc"
    title: ClassVar[str] = "InstDisc"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.4),
        jitter_probability=1.0,
        grey=0.2,
        blur=0.0,
    )
    num_samples: BankRows = 1_281_167  # rows of the bank; those of the run
    projector: Literal["mlp", "linear", "none"] = "linear"
    projection_dim: Width = 128  # Sec. 4.2
    loss: Literal["nce", "softmax", "parametric"] = "nce"  # Tab. 1
    num_negatives: Negatives = 4096  # Tab. 1; of "nce"
    temperature: float = Field(default=0.07, gt=0)  # Sec. 3.1; 0.1 for CIFAR-10
    ema_decay: float = Field(default=0.5, ge=0, le=1)  # of a row of the bank; the paper: 0
    normalizer_decay: float = Field(default=1.0, ge=0, le=1)  # of Z; 1: constant, as in Sec. 3.2
    proximal_weight: float = Field(default=0.0, ge=0)  # lambda of Sec. 3.3


class InstDisc(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, as in the reference code
    normalizer: Tensor

    def __init__(self, backbone: Backbone, config: InstDiscConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        self.projector, dim = build_head(config.projector, features, config.projection_dim)
        if config.loss == "parametric":
            self.classifier = nn.Linear(dim, config.num_samples, bias=False)
        self.bank = MemoryBank(config.num_samples, dim)
        self.register_buffer("normalizer", torch.zeros(()))  # Z; 0 until a batch has come
        self.is_normalized = False  # whether one has; a GPU is asked until then alone
        self.register_load_state_dict_post_hook(_ask_again)

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        (view,) = batch.views
        h = self.backbone(view)
        z = self.projector(h)
        v = F.normalize(z, dim=1)
        own = self.bank.features[batch.index]
        if self.config.loss == "parametric":  # eq. 1: neither norms nor a temperature
            weight = self.classifier.weight
            loss = instance_softmax(z, weight, batch.index, temperature=1.0)
        else:
            loss = self._loss(v, batch.index, progress)
        if self.config.proximal_weight > 0:
            loss = loss + self.config.proximal_weight * (v - own).square().sum(dim=1).mean()
        self.bank.update(gather(batch.index), gather(v.detach()), self.config.ema_decay)
        metrics = {
            **output_readings(z),
            "bank_similarity": F.cosine_similarity(v.detach(), own).mean(),
        }
        return StepOutput(loss, features=h.detach(), metrics=metrics)

    def _loss(self, v: Tensor, index: Tensor, progress: Progress) -> Tensor:
        config, bank = self.config, self.bank.features
        if config.loss == "softmax":
            return instance_softmax(v, bank, index, temperature=config.temperature)
        noise = self.bank.draw(index, config.num_negatives, step=progress.step)
        candidates = torch.cat([index[:, None], noise], dim=1)
        options = {"temperature": config.temperature, "num_samples": config.num_samples}
        # the first batch of the run gives Z alone (Sec. 3.2)
        self.is_normalized = self.is_normalized or bool(self.normalizer > 0)
        decay = config.normalizer_decay if self.is_normalized else 0.0
        if decay < 1:
            estimate = partial(instance_normalizer, **options)
            z = mean_over_bank_rows(estimate, v.detach(), bank, candidates)
            self.normalizer.lerp_(mean_over_processes(z).to(self.normalizer), 1 - decay)
        loss = partial(instance_nce, normalizer=self.normalizer, **options)
        return mean_over_bank_rows(loss, v, bank, candidates)

    def chance_loss(self, batch_size: int) -> float:
        n, k = self.config.num_samples, self.config.num_negatives
        if self.config.loss != "nce":
            return math.log(n)
        noise = k / n
        either = 1 / n + noise + 1e-7
        return math.log(n * either) + k * math.log(either / noise)


def _ask_again(method: InstDisc, _: Any) -> None:
    method.is_normalized = False  # other weights have been loaded
