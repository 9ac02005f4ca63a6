"""Barlow Twins (Zbontar et al., ICML 2021, arXiv:2103.03230), and its HSIC variant (BT-HSIC).

    v1, v2 = t(x), t'(x)                 two families of transforms, those of BYOL
    z = projector(backbone(v))
    C = standardize(z1)^T standardize(z2) / N        eq. 2; over the whole batch
    loss = sum (1 - C_ii)^2 + lambda sum C_ij^2      eq. 1

BT-HSIC (Tsai et al., 2021, arXiv:2104.13712) draws C_ij to -1 instead of 0. Neither needs
negatives, a predictor, a stop-gradient or a moving average.

Biases and BatchNorm learn at ``bias_lr_scale`` times the rate. The paper trains with one rate and
the loss times 1/32 (0.024 in the end); LARS hides the scale of a loss from weights but not from
1-D tensors, so the present code writes it as 0.0048 for them beside 0.2 for weights.

Differs from the reference code (facebookresearch/barlowtwins): the gradient is that of the loss at
any number of processes; the code's is 1/W of it with W processes, which LARS hides in the weights
but not in biases and norms: with the published settings they move W times as far here. A short last
batch is dropped, where the code divides C by the full batch. For BT-HSIC
(yaohungt/Barlow-Twins-HSIC) projections are not scaled to length 1 before they are standardized,
and C is the one above, with the biased variance.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from similitude.distributed import gather, own_share
from similitude.images.views import ImageViewConfig
from similitude.losses import barlow_twins, barlow_twins_hsic
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import build_head, mlp, output_readings
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView

_VIEW1 = ImageViewConfig(
    crop_scale=(0.08, 1.0),
    interpolation="bicubic",
    jitter=(0.4, 0.4, 0.2, 0.1),
    jitter_probability=0.8,
    grey=0.2,
    blur=1.0,
)
_VIEW2 = _VIEW1.changed(blur=0.1, solarize=0.2)


class BarlowTwinsBaseConfig(MethodConfig):
    """What both share: the paper's settings for ImageNet and ResNet-50 (Sec. 2.2)."""

    keeps_lars: ClassVar[bool] = True
    view1: AnyView = _VIEW1
    view2: AnyView = _VIEW2
    projector_layers: int = Field(default=3, ge=0)  # 0: none, as in Graph Barlow Twins
    hidden_dim: Width = 8192
    projection_dim: Width = 8192  # Fig. 4: larger is better
    projector_norm: bool = True  # BatchNorm before every ReLU
    # Rate of 1-D tensors as a share of that of weights: 0.0048 / 0.2. For LARS; see above.
    bias_lr_scale: float = Field(default=0.024, gt=0)


class BarlowTwinsConfig(BarlowTwinsBaseConfig):
    """Barlow Twins."""

    name: Literal["barlow_twins"] = "barlow_twins"
    title: ClassVar[str] = "Barlow Twins"
    off_diagonal_weight: float = Field(default=0.0051, ge=0)  # lambda; 0: invariance alone, Tab. 5


class BarlowTwinsHSICConfig(BarlowTwinsBaseConfig):
    """BT-HSIC, tried by its authors in the code of Barlow Twins."""

    name: Literal["barlow_twins_hsic"] = "barlow_twins_hsic"
    title: ClassVar[str] = "Barlow Twins HSIC"
    off_diagonal_weight: float = Field(default=0.0051, ge=0)  # 1 / projection_dim on CIFAR-10


class BarlowTwins(Method):
    """See the module's docstring."""

    def __init__(
        self, backbone: Backbone, config: BarlowTwinsConfig | BarlowTwinsHSICConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector, self._dim = build_head(
            "mlp" if config.projector_layers else "none",
            backbone.num_features,
            config.projection_dim,
            lambda: self._head(backbone.num_features),
        )

    def _head(self, features: int) -> nn.Module:
        config = self.config
        hidden = [config.hidden_dim] * (config.projector_layers - 1)
        return mlp(
            [features, *hidden, config.projection_dim],
            norm=config.projector_norm,
            last_bias=False,  # the loss takes the mean away
        )

    @property
    def _is_hsic(self) -> bool:
        return isinstance(self.config, BarlowTwinsHSICConfig)

    def views(self, facts: Any) -> MultiView:
        return MultiView(self.config.view1.on(facts), self.config.view2.on(facts))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2 = batch.views
        h1 = self.backbone(v1)
        z1, z2 = self.projector(h1), self.projector(self.backbone(v2))
        loss_of = barlow_twins_hsic if self._is_hsic else barlow_twins
        loss = loss_of(
            gather(z1),
            gather(z2),
            off_diagonal_weight=self.config.off_diagonal_weight,
            share=own_share(),
        )
        return StepOutput(loss, features=h1.detach(), metrics=output_readings(z1))

    def chance_loss(self, batch_size: int) -> float:
        p = self._dim  # of features that are not correlated at all
        pairs = p * (p - 1) if self._is_hsic else 0
        return p + self.config.off_diagonal_weight * pairs

    def param_groups(self) -> list[dict[str, Any]]:
        weights, biases_and_norms = super().param_groups()
        return [weights, {**biases_and_norms, "lr_scale": self.config.bias_lr_scale}]
