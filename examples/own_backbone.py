"""A backbone of your own, under a name that timm knows, with views of your own choice.

python examples/own_backbone.py PHOTOS --minutes 10
"""

import argparse
from typing import Any

from timm.models import register_model
from torch import Tensor, nn

import similitude as sim


class Plain(nn.Module):
    """Four convolutions: images [N, 3, H, W] to features [N, num_features]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = 8 * width
        layers: list[nn.Module] = []
        channels = 3
        for wider in (width, 2 * width, 4 * width, 8 * width):
            convolution = nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(wider), nn.ReLU()]
            channels = wider
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the last map."""
        return self.layers(images).mean(dim=(2, 3))


@register_model
def plain(pretrained: bool = False, width: int = 32, **_: Any) -> Plain:
    """What the name "plain" builds; further arguments of timm's are not needed."""
    return Plain(width)


def main() -> None:
    """Train it, and load it again."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--out", default="runs/plain")
    args = parser.parse_args()

    run = sim.pretrain(
        args.photos,
        method="simclr",
        backbone=sim.backbones.BackboneConfig(name="plain", options={"width": args.width}),
        overrides=["method.view.blur=0", "method.view.crop_scale=[0.3,1]"],
        minutes=args.minutes,
        out=args.out,
    )
    if run is not None:
        again = sim.load(args.out)  # wherever this file was imported, or its function registered
        print(type(again.backbone).__name__, again.verdict.sentence)


if __name__ == "__main__":
    main()
