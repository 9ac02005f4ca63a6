"""SimCLR: a simple framework for contrastive learning (Chen et al., ICML 2020, arXiv:2002.05709).

    v1, v2 = t(x), t'(x)                 two draws from one family of transforms (Sec. 2.1, App. A)
    h = backbone(v)                      kept after pretraining
    z = projector(h)                     thrown away (Sec. 4.2)
    loss = NT-Xent(z1, z2)               eq. 1: the other view among 2N - 1 candidates

Both views pass the backbone in one batch, so BatchNorm sees all 2N images (the paper's global BN).

Differs from the reference code (google-research/simclr): the loss is the paper's mean over the 2N
anchors, half of what the code returns; crops may be smaller than 10 % of the image (the code's
min_object_covered forbids it); jitter is torchvision's (the code: contrast around the mean of each
channel, saturation in HSV) and blur reflects at the border. Half the loss moves biases and norms
half as far, which LARS hides in the weights alone. As in the code, and unlike the paper's text,
every head layer has BatchNorm (the last without offset), head weights start from N(0, 0.01), and
images stay in [0, 1].
"""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from similitude.distributed import gather, own_share
from similitude.images.views import ImageViewConfig
from similitude.losses import nt_xent, repulsion
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import mlp, output_readings
from similitude.nets.backbone import Backbone
from similitude.nets.views import joined
from similitude.sample import AnyView, MultiView


class SimCLRConfig(MethodConfig):
    """Defaults are the paper's for ImageNet and ResNet-50 (Sec. 2, App. A and B)."""

    name: Literal["simclr"] = "simclr"
    title: ClassVar[str] = "SimCLR"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.08, 1.0),
        interpolation="bicubic",
        jitter=(0.8, 0.8, 0.8, 0.2),  # strength s = 1; CIFAR-10: s = 0.5 (App. B.9)
        jitter_probability=0.8,
        grey=0.2,
        blur=0.5,  # CIFAR-10: 0
        blur_kernel=0.1,  # of the image's height
        normalize=False,
    )
    projector: Literal["mlp", "linear", "none"] = "mlp"  # Sec. 4.2, Fig. 8
    projector_layers: int = Field(default=2, ge=2)  # SimCLR v2's code defaults to 3
    projector_hidden: Width | None = None  # None: the backbone's features
    projection_dim: Width = 128
    projector_norm: bool = True  # BatchNorm in the head
    temperature: float = Field(default=0.1, gt=0)  # 0.5 for CIFAR-10 (App. B.9)


class SimCLR(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Backbone, config: SimCLRConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.projector = self._projector(backbone.num_features)

    def _projector(self, features: int) -> nn.Module:
        config = self.config
        if config.projector == "none":
            return nn.Identity()
        layers = 1 if config.projector == "linear" else config.projector_layers
        hidden = [config.projector_hidden or features] * (layers - 1)
        norm = config.projector_norm
        head = mlp(
            [features, *hidden, config.projection_dim],
            norm=norm,
            last_norm="scale" if norm else "none",
        )
        for layer in head:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
        return head

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        h = self.backbone(joined(batch.views))
        z = self.projector(h)
        z1, z2 = z.chunk(2)
        loss = nt_xent(
            gather(z1), gather(z2), temperature=self.config.temperature, share=own_share()
        )
        extra = repulsion(z1, z, temperature=self.config.temperature, left_out=(0, len(z1)))
        metrics = output_readings(z1, extra)
        return StepOutput(loss, features=h.detach().chunk(2)[0], metrics=metrics)

    def chance_loss(self, batch_size: int) -> float:
        return math.log(2 * batch_size - 1)
