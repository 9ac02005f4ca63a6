"""A start: a backbone with weights, and what is known of the samples it wants."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from similitude.nets.weights import fingerprint_of, load_strictly


@dataclass(frozen=True, eq=False)  # tensors have no single truth value
class Start:
    """Weights from which a training starts, or which stand frozen beside it.

    Attributes:
        name: Short, for rows of tables and the recipe: "efficientnet-lite0",
            "timm:resnet50.a1_in1k", the stem of a file, the name of a run's folder.
        title: Of the layout: "MoCo v2's official checkpoint".
        backbone: A :class:`NetworkConfig` that rebuilds the network, without a network connection
            and without a file.
        state: Its weights, under timm's names and in the order of the network's own state_dict.
        image_size: Side of the images it was made for, in pixels.
        mean: Per channel (of three: red, green, blue), of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1]; positive.
        report: Sentences on what was loaded, renamed, left out and assumed, and why.
    """

    name: str
    title: str
    backbone: Any
    state: dict[str, Tensor] = field(repr=False)
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    report: list[str] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """The weights in 16 characters: names, shapes and every bit, but not the order."""
        return fingerprint_of(self.state)

    def build(self) -> nn.Module:
        """The backbone with these weights, in evaluation mode: images [N, C, H, W] to [N, D].

        Torch's global generator is left as it was. The network is marked so that methods which
        draw the first weights themselves (MoCo v3, CMC) leave these as they are.
        """
        with torch.random.fork_rng(devices=[]):
            backbone = self.backbone.build()
        load_strictly(backbone, self.state, f"backbone {self.backbone.name!r}")
        backbone.has_pretrained_weights = True
        return backbone.eval()
