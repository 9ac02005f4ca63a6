"""CMC: contrastive multiview coding (Tian et al., ECCV 2020, arXiv:1906.05849).

    x_1, .., x_V = channels of a color space of one crop t(x), e.g. L | ab          Sec. 4.1
                   or what V sensors saw of it: photo | depth | text                 Sec. 4.2
    z_v = unit(projector_v(backbone_v(x_v)))          each view has networks of its own
    for every ordered pair (v, w):                    full graph, eq. 8; core view: pairs with x_1
        tell row i of bank_w from K rows drawn from it, given z_v                    eq. 4
    loss = the sum over the pairs
    row i of bank_v <- unit(m row i + (1 - m) z_v)    after the loss has read it

The K + 1 rows are the same for all pairs. Two images of one batch never meet but in the banks,
unless the loss is "in_batch": then the other samples of the batch are what a view is told from. A
sample without an entry of a sensor is left out of that sensor's pairs (Sec. 3.3); its row of the
bank keeps what it was.

Differs from the reference code (HobbitLong/CMC): a group of channels is seen by an ordinary network
for RGB, with zeros in place of the other channels, instead of a network with one or two input
channels: another width of the first layer, the same function; BatchNorm sees the whole batch. A
step's rows are a function of step and image, not of a global random state. As in the code, and
unlike the paper's equations, the denominators of NCE hold 1e-7 more, and banks move by half of the
way.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.distributed import gather, mean_over_processes, own_share
from similitude.errors import UserError
from similitude.images.color_split import ColorSplit
from similitude.images.views import ImageViewConfig
from similitude.losses import (
    bank_softmax,
    instance_nce,
    instance_normalizer,
    matched_softmax,
    mean_over_bank_rows,
)
from similitude.memory import MemoryBank
from similitude.method import (
    SENSORS_NEEDED,
    BankRows,
    Batch,
    Method,
    MethodConfig,
    Negatives,
    Progress,
    StepOutput,
    Width,
)
from similitude.multimodal.networks import Towers
from similitude.nets import worst_readings
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView


class CMCConfig(MethodConfig):
    """Defaults are the authors' for ImageNet and ResNet-50 (Sec. 4.1 and their commands)."""

    name: Literal["cmc"] = "cmc"
    title: ClassVar[str] = "CMC"
    compares_sensors: ClassVar[bool] = True
    compares_parts_of: ClassVar[tuple[str, ...]] = ("image",)
    view: AnyView = ImageViewConfig(
        crop_scale=(0.08, 1.0),  # 0.2 for AlexNet
        jitter_probability=0.0,
        grey=0.0,
        blur=0.0,
        normalize=False,  # colors are converted from [0, 1]
    )
    num_samples: BankRows = 1_281_167  # rows of a bank; those of the run
    color_space: Literal["lab", "ycbcr"] = "lab"  # Sec. 4.1; YCbCr is a little better in the code
    split: tuple[int, ...] = (1, 2)  # channels in each view: L | ab; (1, 1, 1) is L | a | b
    graph: Literal["full", "core"] = "full"  # Sec. 3.3; alike for two views
    projection_dim: Width = 128
    loss: Literal["nce", "softmax", "in_batch"] = "nce"
    num_negatives: Negatives = 16_384  # 4,096 for the authors' published weights
    temperature: float = Field(default=0.07, gt=0)  # 0.1 on STL-10
    ema_decay: float = Field(default=0.5, ge=0, le=1)  # of a row of a bank

    def for_network(self, network: nn.Module) -> "CMCConfig":
        if isinstance(network, Towers):
            return self
        if not isinstance(self.view, ImageViewConfig):
            raise UserError(
                "cmc compares colors of images, or the sensors of a table: choose another --method"
            )
        channels = getattr(getattr(network, "built_from", None), "input_channels", 3)
        if channels != 3:
            raise UserError(
                "cmc splits images into colors, which are red, green and blue, and these have "
                f"{channels} channel{'' if channels == 1 else 's'}: choose another --method"
            )
        return self

    @model_validator(mode="after")
    def _colors_can_be_split(self) -> "CMCConfig":
        if isinstance(self.view, ImageViewConfig) and self.view.normalize:
            raise ValueError("CMC converts colors of pixels in [0, 1]; set view.normalize=false")
        if len(self.split) < 2 or min(self.split) < 1 or sum(self.split) != 3:
            raise ValueError(
                f"split is {list(self.split)}; give two or three positive numbers that sum to 3"
            )
        return self


class CMC(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, as in the reference code
    normalizers: Tensor

    def __init__(self, backbone: Backbone, config: CMCConfig) -> None:
        super().__init__()
        self.config = config = config.for_network(backbone)
        dim = config.projection_dim
        if isinstance(backbone, Towers):
            self.backbone = backbone
            widths = list(backbone.widths.values())
        else:
            self.backbone = ColorSplit(backbone, space=config.color_space, split=config.split)
            widths = [backbone.num_features] * len(config.split)
        if len(widths) < 2:
            raise UserError(f"cmc compares sensors: {SENSORS_NEEDED}")
        self.projectors = nn.ModuleList(nn.Linear(width, dim) for width in widths)
        banks = [] if config.loss == "in_batch" else widths
        self.banks = nn.ModuleList(MemoryBank(config.num_samples, dim) for _ in banks)
        pairs = permutations(range(len(widths)), 2)
        self.pairs = [pair for pair in pairs if config.graph == "full" or 0 in pair]
        self.normalized: set[int] = set()  # pairs that have a Z; a GPU is asked until then alone
        self.register_load_state_dict_post_hook(_ask_again)
        # Z of each pair; 0 until a batch has come
        self.register_buffer("normalizers", torch.zeros(len(self.pairs)))

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        view = batch.views[0]
        if isinstance(self.backbone, Towers):
            named = self.backbone.parts(view)
            parts, there = list(named.values()), [view.present[name] for name in named]
            h = torch.cat([named[name].detach() for name in self.backbone.kept], dim=1)
        else:
            h = self.backbone(view)
            parts, there = list(h.chunk(len(self.projectors), dim=1)), None
        z = [projector(part) for projector, part in zip(self.projectors, parts, strict=True)]
        v = [F.normalize(projection, dim=1) for projection in z]
        metrics = worst_readings(z)
        if self.banks:
            loss = self._over_banks(v, there, batch, progress)
        else:
            valid = None if there is None else [gather(own) for own in there]
            loss = self._in_batch(v, valid)
            if valid is not None:  # of as many pairs as are whole
                whole = [(valid[a] & valid[b]).sum().clamp_min(1) for a, b in self.pairs]
                metrics["chance_loss"] = torch.stack(whole).float().log().sum()
        return StepOutput(loss, features=h.detach(), metrics=metrics)

    def _in_batch(self, v: list[Tensor], valid: list[Tensor] | None) -> Tensor:
        """The sum over the pairs, against the other samples of the batch."""
        everyone = [gather(features) for features in v]
        scale = v[0].new_full((), 1 / self.config.temperature)
        losses = [
            # of a pair in both orders the mean, and both orders are in the sum
            matched_softmax(
                everyone[a],
                everyone[b],
                scale=scale,
                valid=None if valid is None else valid[a] & valid[b],
                share=own_share(),
            )
            for a, b in self.pairs
        ]
        return torch.stack(losses).sum()

    def _over_banks(
        self, v: list[Tensor], there: list[Tensor] | None, batch: Batch, progress: Progress
    ) -> Tensor:
        """The sum over the pairs, against rows of the banks, which move afterwards."""
        config = self.config
        banks: list[MemoryBank] = list(self.banks)  # type: ignore[arg-type]
        drawn = banks[0].draw(batch.index, config.num_negatives, step=progress.step)
        rows_of = torch.cat([batch.index[:, None], drawn], dim=1)
        losses = []
        for pair, (a, b) in enumerate(self.pairs):
            weight = None
            if there is not None:
                # makes a mean over own samples that over the valid samples of all processes
                valid = (there[a] & there[b]).to(v[a])
                weight = valid * (len(valid) / mean_over_processes(valid.sum()).clamp_min(1e-9))
            losses.append(self._loss(pair, v[a], banks[b].features, rows_of, weight))
        index = gather(batch.index)
        for number, (bank, features) in enumerate(zip(banks, v, strict=True)):
            found = gather(features.detach())
            known = None if there is None else gather(there[number])
            bank.update(index, found, config.ema_decay, known)
        return torch.stack(losses).sum()

    def _loss(
        self,
        pair: int,
        features: Tensor,
        bank: Tensor,
        rows_of: Tensor,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Of one ordered pair: features of a view against rows of another view's bank."""
        config = self.config

        def mean(of: Callable[..., Tensor], features: Tensor) -> Tensor:
            return mean_over_bank_rows(of, features, bank, rows_of, weight)

        if config.loss == "softmax":
            return mean(partial(bank_softmax, temperature=config.temperature), features)
        options = {"temperature": config.temperature, "num_samples": config.num_samples}
        if pair not in self.normalized and bool(self.normalizers[pair] > 0):
            self.normalized.add(pair)
        if pair not in self.normalized:  # once, from the first batch that has such a pair
            z = mean(partial(instance_normalizer, **options), features.detach())
            self.normalizers[pair] = mean_over_processes(z)
        z = self.normalizers[pair]
        z = torch.where(z > 0, z, 1)  # no such pair has come: every weight is 0
        loss = partial(instance_nce, normalizer=z, **options)
        return mean(loss, features)

    def chance_loss(self, batch_size: int) -> float:
        if self.config.loss == "in_batch":
            return len(self.pairs) * math.log(batch_size)
        n, k = self.config.num_samples, self.config.num_negatives
        if self.config.loss == "softmax":
            return len(self.pairs) * math.log(1 + k)
        noise = k / n
        either = 1 / n + noise + 1e-7
        return len(self.pairs) * (math.log(n * either) + k * math.log(either / noise))


def _ask_again(method: CMC, _: Any) -> None:
    method.normalized.clear()  # other weights have been loaded
