"""InvaSpread: invariant and spreading instance feature (Ye et al., CVPR 2019, arXiv:1904.03436).

    v1, v2 = t(x), t(x)
    z = unit(projector(backbone(v)))     all 2N views in one batch
    P(j | i) = exp(z_i . sg(z_j) / t) / sum over k != i of exp(z_i . sg(z_k) / t)
    loss = mean over i of -log P(other view | i)                            invariant: eq. 3
                          - sum over other images j of log(1 - P(j | i))    spread out: eq. 4

No memory: the features of the batch stand where InstDisc has its bank.

Differs from the reference code (mangye16/Unsupervised_Embedding_Learning): nothing known in views
and loss; the recipe's schedule is the paper's (the code: 301 epochs, 0.1, 0.05, 0.01 of the rate).
As in the code, and unlike the paper's equations, the denominator holds the 2N - 1 other views
instead of the N original images, both views are augmented, and z_j carries no gradient (sg).
"""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch.nn import functional as F

from similitude.distributed import gather, own_share
from similitude.images.views import ImageViewConfig
from similitude.losses import invariant_spread
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import build_head, output_readings
from similitude.nets.backbone import Backbone
from similitude.nets.views import joined
from similitude.sample import AnyView, MultiView


class InvaSpreadConfig(MethodConfig):
    """Defaults are the paper's for CIFAR-10 and STL-10 (Sec. 4.1)."""

    name: Literal["inva_spread"] = "inva_spread"
    title: ClassVar[str] = "InvaSpread"
    view: AnyView = ImageViewConfig(  # Sec. 4.3 takes parts of it away
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.4),
        jitter_probability=1.0,
        grey=0.2,
        blur=0.0,
    )
    projector: Literal["mlp", "linear", "none"] = "linear"
    projection_dim: Width = 128
    temperature: float = Field(default=0.1, gt=0)
    negative_weight: float = Field(default=1.0, ge=1)  # --batch-m of the reference code


class InvaSpread(Method):
    """See the module's docstring."""

    decays_all = True  # biases and norms too, as in the reference code

    def __init__(self, backbone: Backbone, config: InvaSpreadConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        self.projector, _ = build_head(config.projector, features, config.projection_dim)

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        h = self.backbone(joined(batch.views))
        z = self.projector(h)
        z1, z2 = F.normalize(z, dim=1).chunk(2)
        loss = invariant_spread(
            gather(z1),
            gather(z2),
            temperature=self.config.temperature,
            negative_weight=self.config.negative_weight,
            share=own_share(),
        )
        return StepOutput(loss, features=h.detach().chunk(2)[0], metrics=output_readings(z1))

    def chance_loss(self, batch_size: int) -> float:
        weight = self.config.negative_weight
        others = 2 * batch_size - 2
        candidates = 1 + weight * others
        return math.log(candidates) - weight * others * math.log(1 - 1 / candidates)
