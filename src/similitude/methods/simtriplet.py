"""SimTriplet: SimSiam with a neighbor as third view (Liu et al., MICCAI 2021, arXiv:2103.05585).

    v1, v2 = t(x), t(x)                  two views of a tile of a large image
    v3 = t(x')                           one view of a tile that touches it
    z = projector(backbone(v)),  p = predictor(z)
    intra = D(p1, sg(z2)) / 2 + D(p2, sg(z1)) / 2    as SimSiam; D = negative cosine, sg = stop
    inter = D(p1, sg(z3)) / 2 + D(p3, sg(z1)) / 2
    loss = intra + inter

The neighbor is drawn anew in every epoch from the four tiles that share an edge with the sample;
``tile_size`` of the recipe cuts large images into tiles. A sample without a neighbor, and data
without neighbors, use the same image a third time.

Differs from the reference code (hrlblab/SimTriplet): one of the touching tiles instead of the
first file that exists of eight written around each patch. As in the code, the second view and the
neighbor are not compared, and the projector's last BatchNorm is affine.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from similitude.images.views import ImageViewConfig
from similitude.losses import negative_cosine
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput, Width
from similitude.nets import mlp, output_readings, prediction_gap
from similitude.nets.backbone import Backbone
from similitude.sample import AnyView, MultiView


class SimTripletConfig(MethodConfig):
    """Defaults are those of SimSiam for ImageNet and ResNet-50, which the paper builds on."""

    name: Literal["simtriplet"] = "simtriplet"
    title: ClassVar[str] = "SimTriplet"
    view: AnyView = ImageViewConfig(
        crop_scale=(0.2, 1.0),
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grey=0.2,
        blur=0.5,
    )
    projector_layers: int = Field(default=3, ge=2)
    projection_dim: Width = 2048
    predictor: Literal["mlp", "none"] = "mlp"
    predictor_hidden: Width = 512
    fixed_predictor_lr: bool = True  # the predictor's rate does not decay
    stop_gradient: bool = True
    neighbour_weight: float = Field(default=1.0, ge=0)  # of the inter-sample term; 0: SimSiam


class SimTriplet(Method):
    """See the module's docstring."""

    wants_batchnorm = True  # arXiv:2103.03166 on SimSiam

    def __init__(self, backbone: Backbone, config: SimTripletConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = backbone.num_features
        dim = config.projection_dim
        self.projector = mlp([features] + [dim] * config.projector_layers, last_norm="affine")
        self.predictor: nn.Module = nn.Identity()
        if config.predictor == "mlp":
            self.predictor = mlp([dim, config.predictor_hidden, dim])

    def views(self, facts: Any) -> MultiView:
        view = self.config.view.on(facts)
        return MultiView(view, view, partner=view)

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        v1, v2, v3 = batch.views
        h1 = self.backbone(v1)
        z1, z2, z3 = (self.projector(h) for h in (h1, self.backbone(v2), self.backbone(v3)))
        p1, p2, p3 = (self.predictor(z) for z in (z1, z2, z3))
        intra = self._half(p1, z2) + self._half(p2, z1)
        inter = self._half(p1, z3) + self._half(p3, z1)
        loss = intra + self.config.neighbour_weight * inter
        metrics = {
            **output_readings(z1, prediction_gap(z1, p1)),
            "intra_sample_loss": intra.detach(),
            "inter_sample_loss": inter.detach(),
        }
        return StepOutput(loss, features=h1.detach(), metrics=metrics)

    def _half(self, p: Tensor, z: Tensor) -> Tensor:
        return negative_cosine(p, z.detach() if self.config.stop_gradient else z) / 2

    def chance_loss(self, batch_size: int) -> float:
        return 0.0  # the cosine of unrelated vectors

    def param_groups(self) -> list[dict[str, Any]]:
        predictor = list(self.predictor.parameters())
        of_predictor = {id(p) for p in predictor}
        trained = [p for p in self.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if id(p) not in of_predictor]},
            {"params": predictor, "fixed_lr": self.config.fixed_predictor_lr},
        ]
        return [group for group in groups if group["params"]]
