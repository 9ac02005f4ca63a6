"""Networks for videos.

Letters: N clips, C channels, T frames, S side in pixels, D features.
"""

from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from similitude.sample import NetworkConfig

Layers = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


class VideoNetworkConfig(NetworkConfig):
    """Which network is trained and kept.

    Attributes:
        name: "r2plus1d", a residual network of (2+1)D convolutions (Tran et al. 2018), or
            "timm:NAME": any network of timm on each frame, and the mean over the frames.
        channels: Of its input; set from the data.
        width: Channels of the first stage, which double in each further one; 64 as published.
        layers: Blocks of each stage; (2, 2, 2, 2) is R(2+1)D-18.
    """

    name: str = "r2plus1d"
    channels: int = Field(default=3, ge=1)
    width: int = Field(default=64, ge=4)
    layers: Layers = (2, 2, 2, 2)

    @property
    def input_channels(self) -> int:  # type: ignore[override]
        """Channels of a frame."""
        return self.channels

    def build(self) -> nn.Module:
        """The network with random weights."""
        network: Any
        if self.name == "r2plus1d":
            network = R2Plus1D(self.channels, self.width, self.layers)
        else:
            network = EachFrame(self.name.removeprefix("timm:"), self.channels)
        network.built_from = self
        network.has_pretrained_weights = False
        return network

    def loading_snippet(self, weights: str, data: Any, facts: Any) -> str:
        """Python that rebuilds the network, and makes of frames what it takes."""
        return f"""\
from safetensors.torch import load_file
from similitude.video.networks import VideoNetworkConfig
from similitude.video.views import VideoFacts

backbone = VideoNetworkConfig(**{self.model_dump()!r}).build().eval()
backbone.load_state_dict(load_file({weights!r}))
{self.preparing_snippet(data, facts)}"""

    def preparing_snippet(self, data: Any, facts: Any) -> str:
        """Python that makes of frames what the network takes."""
        decode = "decode_flow" if facts.shows == "flow" else "decode_frames"
        return f"""\
import torch
from similitude.video.decoding import {decode}

facts = {facts!r}
with open("clip.mp4", "rb") as file:
    clip = torch.from_numpy({decode}(file, {data.rate!r}, {facts.size}))
# of any length: `embed` takes the middle frames, and repeats the last one of what is shorter
begin = max(0, (len(clip) - {facts.frames}) // 2)
clip = clip[(begin + torch.arange({facts.frames})).clamp_max(len(clip) - 1)]
features = backbone(facts.normalized(facts.shown(clip[None])))"""


class R2Plus1D(nn.Module):
    """Residual convolutions of space, then of time (Tran et al., arXiv:1711.11248, Sec. 3.5).

    Both are convolutions in two dimensions, over [N T, C, S, S] and over [N, C, T, S S]: views of
    one tensor whose channels come last. Gradients in bfloat16 of those in three dimensions are
    not always numbers on processors (oneDNN as of PyTorch 2.14).

    Attributes:
        stage_widths: Numbers of each stage in :meth:`stages`; the last are the features.
    """

    sees_time = True

    def __init__(self, channels: int, width: int, layers: tuple[int, ...]) -> None:
        super().__init__()
        stem = max(4, round(45 * width / 64))
        self.stem = _SpaceAndTime(channels, stem, width, side=7, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.stage_widths = tuple(width * 2**i for i in range(len(layers)))
        self.num_features = self.stage_widths[-1]
        given, stages = width, []
        for stage, (count, out) in enumerate(zip(layers, self.stage_widths, strict=True)):
            blocks = []
            for block in range(count):
                blocks.append(_Block(given, out, 2 if stage and not block else 1))
                given = out
            stages.append(nn.ModuleList(blocks))
        self.blocks = nn.ModuleList(stages)

    def stages(self, x: Float[Tensor, "N C T S S"]) -> list[Float[Tensor, "N _"]]:
        """The mean over time and space of what each stage gives."""
        n, t = len(x), x.shape[2]
        x, t = self.stem(x.transpose(1, 2).flatten(0, 1), t)
        x, found = torch.relu(self.norm(x)), []
        for blocks in self.blocks:
            for block in blocks:  # type: ignore[attr-defined]
                x, t = block(x, t)
            found.append(x.mean((2, 3)).unflatten(0, (n, t)).mean(1))
        return found

    def forward(self, x: Float[Tensor, "N C T S S"]) -> Float[Tensor, "N D"]:
        """Features of clips of any length."""
        return self.stages(x)[-1]


class _SpaceAndTime(nn.Module):
    """A convolution of each frame, BatchNorm, ReLU, and one over time; of frames [N T, C, S, S]."""

    def __init__(
        self, given: int, middle: int, out: int, *, side: int = 3, stride: int = 1, steps: int = 1
    ) -> None:
        super().__init__()
        self.steps = steps
        self.space = nn.Conv2d(given, middle, side, stride, side // 2, bias=False)
        self.norm = nn.BatchNorm2d(middle)
        self.time = nn.Conv2d(middle, out, (3, 1), (steps, 1), (1, 0), bias=False)

    def forward(self, x: Float[Tensor, "M C S S"], t: int) -> tuple[Float[Tensor, "m D s s"], int]:
        x = torch.relu(self.norm(self.space(x)))
        side = x.shape[2:]
        x = x.unflatten(0, (-1, t)).transpose(1, 2).flatten(3)  # [N, C, T, s s]
        x = self.time(x)
        t = x.shape[2]
        return x.transpose(1, 2).unflatten(3, side).flatten(0, 1), t


class _Block(nn.Module):
    def __init__(self, given: int, out: int, stride: int) -> None:
        super().__init__()

        def as_many_weights(given: int) -> int:  # as a convolution of 3 x 3 x 3 has
            return max(1, 27 * given * out // (9 * given + 3 * out))

        self.first = _SpaceAndTime(given, as_many_weights(given), out, stride=stride, steps=stride)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = _SpaceAndTime(out, as_many_weights(out), out)
        self.second_norm = nn.BatchNorm2d(out)
        self.steps = stride
        self.around = nn.Identity()
        if stride > 1 or given != out:
            self.around = nn.Sequential(
                nn.Conv2d(given, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Float[Tensor, "M C S S"], t: int) -> tuple[Float[Tensor, "m D s s"], int]:
        some = x.unflatten(0, (-1, t))[:, :: self.steps].flatten(0, 1) if self.steps > 1 else x
        y, t = self.first(x, t)
        y, t = self.second(torch.relu(self.first_norm(y)), t)
        return torch.relu(self.second_norm(y) + self.around(some)), t


class EachFrame(nn.Module):
    """A network of images on every frame, and the mean over time."""

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        import timm  # takes a second

        self.network: Any = timm.create_model(name, in_chans=channels, num_classes=0)
        self.num_features = int(self.network.num_features)

    def forward(self, x: Float[Tensor, "N C T S S"]) -> Float[Tensor, "N D"]:
        """Features of clips of any length."""
        n, _, t = x.shape[:3]
        h = self.network(x.transpose(1, 2).flatten(0, 1))
        return h.unflatten(0, (n, t)).mean(1)
