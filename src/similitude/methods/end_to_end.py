"""The end-to-end mechanism that MoCo is compared with (He et al., arXiv:1911.05722, Fig. 2a).

    v_q, v_k = t(x), t(x)
    q = unit(projector(backbone(v_q)))
    k = unit(projector(backbone(v_k)))           the same networks, and gradient in both
    loss = InfoNCE(q, k)                         eq. 1; negatives: the other keys of the batch

One of three ways to keep a dictionary of keys (Sec. 3.1, "Relations to previous mechanisms");
``memory_bank`` and ``moco_v1`` are the others. Its keys are as consistent as can be, but no more
than the batch has. The paper's batches reach 1,024, with the learning rate in proportion.

BatchNorm as in MoCo: statistics over ``bn_splits`` parts of the batch, keys in another order, so
that a query and its key do not share them (Sec. 3.3, Shuffling BN).

Differs from the reference code: the authors published none. From the text: both encoders are one
network, which the paper leaves open; a query compares with the keys of the whole batch.
"""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from similitude.devices import moved
from similitude.distributed import gather, own_rows, own_share
from similitude.images.views import ImageViewConfig
from similitude.losses import in_batch_info_nce, repulsion
from similitude.method import Batch, BatchParts, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import build_head, convert_split_batchnorm, output_readings
from similitude.nets.backbone import Backbone
from similitude.nets.views import gathered, rows_at
from similitude.randomness import permutation
from similitude.sample import AnyView, MultiView


class EndToEndConfig(MethodConfig):
    """Defaults are those of MoCo v1, which the paper keeps equal (Sec. 4.1)."""

    name: Literal["end_to_end"] = "end_to_end"
    title: ClassVar[str] = "End-to-end"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.4),  # v2: hue 0.1, probability 0.8, blur 0.5
        jitter_probability=1.0,
        grey=0.2,
        blur=0.0,
    )
    projector: Literal["mlp", "linear", "none"] = "linear"  # v2: mlp
    projection_dim: Width = 128
    temperature: float = Field(default=0.07, gt=0)  # v2: 0.2
    symmetric: bool = False  # True: the sum of both directions
    bn_splits: BatchParts = 8  # 1: BatchNorm over the whole batch, which leaks


class EndToEnd(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, as in MoCo's code

    def __init__(self, backbone: Backbone, config: EndToEndConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = convert_split_batchnorm(backbone, config.bn_splits)
        features = backbone.num_features
        self.projector, _ = build_head(config.projector, features, config.projection_dim)

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        options = {"temperature": self.config.temperature, "share": own_share()}
        h1 = self.backbone(v1)
        z1 = self.projector(h1)
        q, k = gather(z1), self._keys(v2, progress)
        loss = in_batch_info_nce(q, k, **options)
        if self.config.symmetric:
            loss = loss + in_batch_info_nce(k, q, **options)
        extra = repulsion(z1, own_rows(k), temperature=self.config.temperature, left_out=(0,))
        return StepOutput(loss, features=h1.detach(), metrics=output_readings(z1, extra))

    def _keys(self, view: Any, progress: Progress) -> Tensor:
        """Keys of the whole batch [M, P], any norm; each process encodes a random part of it."""
        views = gathered(view)
        order = moved(permutation(0, progress.step, len(views)), view.device)
        k = self.projector(self.backbone(rows_at(views, own_rows(order))))
        return gather(k)[order.argsort()]

    def chance_loss(self, batch_size: int) -> float:
        return (2 if self.config.symmetric else 1) * math.log(batch_size)
