"""A method and a view of your own: say what a covered picture shows.

    python examples/own_method.py PHOTOS --minutes 10
    similitude pretrain DATA --method own_method:Uncover       (in the folder of this file)

One view of each photo is whole, the other has a gray square. From the features of the covered one a
predictor is to tell the features of the whole one, which get no gradient.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

import similitude as sim
from similitude.images.views import ImageView, ImageViewConfig
from similitude.method import Batch, Method, MethodConfig, Progress, StepOutput
from similitude.nets import mlp, output_readings
from similitude.randomness import uniform
from similitude.sample import AnyView, Draw, MultiView, View


@dataclass(frozen=True)
class Covered(View[Any]):
    """A view with a gray square. Drawn from seed, epoch, position and view alone."""

    of: ImageView
    side: float  # of the square, as a share of the picture's

    def draw(self, draw: Draw, rows: Any) -> Any:
        """Where the square is, and what the view inside draws."""
        corners = [uniform(draw.seed, draw.epoch, draw.index, v, "square", 2) for v in draw.views]
        return self.of.draw(draw, rows), corners

    def apply(self, rows: Any, choices: Any) -> Sequence[Tensor]:
        """The views inside, covered."""
        inner, corners = choices
        views = self.of.apply(rows, inner)
        side = round(self.side * views[0].shape[-1])
        place = torch.arange(views[0].shape[-1])
        for view, corner in zip(views, corners, strict=True):
            first = (corner * (view.shape[-1] - side + 1)).long()[..., None]  # [N, 2, 1]
            inside = (place >= first) & (place < first + side)  # [N, 2, S]: rows, columns
            square = inside[:, 0, :, None] & inside[:, 1, None, :]
            view.masked_fill_(square[:, None].to(view.device), 0.0)  # the mean color
        return views


class UncoverConfig(MethodConfig):
    """Settings, each of which ``--set method.FIELD=VALUE`` changes."""

    name: Literal["uncover"] = "uncover"
    title: ClassVar[str] = "Uncover"
    view: AnyView = ImageViewConfig(blur=0.0)
    square: float = 0.5
    projection_dim: int = 64


class Uncover(Method):
    """See the module's docstring."""

    def __init__(self, backbone: Any, config: UncoverConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.projector = mlp([backbone.num_features, 256, config.projection_dim])
        self.predictor = mlp([config.projection_dim, 256, config.projection_dim])

    def views(self, facts: Any) -> MultiView:
        """The whole picture, and the covered one."""
        whole = self.config.view.on(facts)
        return MultiView(whole, Covered(whole, self.config.square))

    def training_loss(self, batch: Batch, progress: Progress) -> StepOutput:
        """Of both directions, the mean."""
        h1, h2 = (self.backbone(view) for view in batch.views)
        z1, z2 = self.projector(h1), self.projector(h2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = sim.losses.negative_cosine(p2, z1.detach())
        loss = (loss + sim.losses.negative_cosine(p1, z2.detach())) / 2
        return StepOutput(loss, features=h1.detach(), metrics=output_readings(z1))

    def chance_loss(self, batch_size: int) -> float:
        """Of unrelated vectors."""
        return 0.0


def main() -> None:
    """Train it as any other method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", default="runs/uncover")
    args = parser.parse_args()

    run = sim.pretrain(args.photos, method=Uncover, minutes=args.minutes, out=args.out)
    if run is not None:
        print(run.verdict.sentence)


if __name__ == "__main__":
    main()
