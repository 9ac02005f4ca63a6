"""Random views of videos: some frames in a row, through a window that moves.

Letters: N videos, V views, M = V N, T frames, C channels, S side in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from similitude.devices import constants, moved
from similitude.randomness import uniforms
from similitude.sample import Draw, View, ViewConfig
from similitude.video.decoding import FLOW_UNIT
from similitude.video.films import Films

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Strength = Annotated[float, Field(ge=0.0, lt=1.0)]
Shown = Literal["frames", "gray", "flow"]

CHANNELS: Mapping[str, int] = {"frames": 3, "gray": 1, "flow": 2}
_GRAY = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


@dataclass(frozen=True)
class VideoFacts:
    """Facts about the videos of a data set that views depend on.

    Attributes:
        shows: What networks are given of a frame.
        size: Side of a frame in pixels.
        frames: Of a clip as evaluations see it, T.
        mean: Per channel: of pixels in [0, 1], of flow in pixels.
        std: Likewise; positive.
    """

    shows: Shown
    size: int
    frames: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def numbers(self) -> int:
        """Numbers of one input of a network."""
        return CHANNELS[self.shows] * self.frames * self.size**2

    def shown(self, x: Tensor) -> Float[Tensor, "M T C S S"]:
        """Pixels in [0, 1] or flow in pixels, of frames as they are kept."""
        if self.shows == "flow":
            return x.float() * FLOW_UNIT
        x = x.float() / 255
        if self.shows == "gray":
            x = (x * constants(_GRAY, x)[:, None, None]).sum(2, keepdim=True)
        return x

    def normalized(self, x: Float[Tensor, "M T C S S"]) -> Float[Tensor, "M C T S S"]:
        """As a network takes it."""
        mean, std = constants(self.mean, x), constants(self.std, x)
        return ((x - mean[:, None, None]) / std[:, None, None]).transpose(1, 2).contiguous()


class VideoViewConfig(ViewConfig):
    """How one view is drawn from a video.

    The cut, the window and the mirror are the same for frames, gray and flow of one draw, so that
    sensors of one file see one place at one time.

    Attributes:
        frames: In a row; None takes as many as evaluations see.
        crop_scale: Smallest and largest share of the frame's area in the window, a square.
        move: How far the window moves from the first frame to the last: 0 stays, 1 goes all the
            way to another place.
        flip: Probability of a horizontal mirror, which turns flow to the right into flow to the
            left.
        brightness: Largest change of the brightness of all frames, as a share; not of flow.
        contrast: Likewise of the contrast.
        grey: Probability of gray frames; of frames alone.
    """

    kind: Literal["video"] = "video"
    frames: Annotated[int, Field(ge=1)] | None = None
    crop_scale: tuple[Share, Share] = (0.4, 1.0)
    move: Probability = 0.5
    flip: Probability = 0.5
    brightness: Strength = 0.4
    contrast: Strength = 0.4
    grey: Probability = 0.2

    @model_validator(mode="after")
    def _range_is_ordered(self) -> "VideoViewConfig":
        low, high = self.crop_scale
        if low > high:
            raise ValueError(f"crop_scale is ({low:g}, {high:g}); give the smaller number first")
        return self

    def on(self, facts: VideoFacts) -> View[Films]:
        """The view of videos of which these facts are true."""
        return VideoView(self, facts)

    def small(self, side: int) -> "VideoViewConfig":
        """Of the whole clip, however short it is."""
        return self.changed(frames=None)


# What is drawn for every view of a video, and how many numbers.
_DRAWN = {
    "cut": 1,
    "size": 1,
    "place": 2,
    "end": 2,
    "flip": 1,
    "brightness": 1,
    "contrast": 1,
    "grey": 1,
}


@dataclass(frozen=True)
class VideoView(View[Films]):
    """One random view of a video."""

    config: VideoViewConfig
    facts: VideoFacts

    def draw(self, draw: Draw, rows: Films) -> Mapping[str, Any]:
        """Numbers for every choice; M rows, view by view."""
        drawn = uniforms(draw.seed, draw.epoch, draw.index, draw.views, _DRAWN)
        return {**drawn, "views": len(draw.views)}

    def apply(
        self, rows: Films, choices: Mapping[str, Any]
    ) -> Sequence[Float[Tensor, "N C T S S"]]:
        """A clip of each video for each view."""
        config, facts, u = self.config, self.facts, choices
        count = facts.frames if config.frames is None else config.frames
        index = rows.index.repeat(u["views"])
        room = (torch.from_numpy(rows.frames.length[index.numpy()]) - count).clamp_min(0)
        begin = (u["cut"][:, 0].double() * (room + 1)).long()
        x = facts.shown(moved(rows.frames.cut(index, begin, count), rows.device))
        numbers = {name: moved(v, x.device) for name, v in u.items() if isinstance(v, Tensor)}
        x = self._through_window(x, numbers)
        if facts.shows != "flow":
            x = self._in_other_light(x, numbers)
        return facts.normalized(x).chunk(u["views"])

    def _through_window(
        self, x: Float[Tensor, "M T C S S"], u: Mapping[str, Tensor]
    ) -> Float[Tensor, "M T C s s"]:
        config, size = self.config, self.facts.size
        m, t, c, side, _ = x.shape
        low, high = config.crop_scale
        width = (low + (high - low) * u["size"][:, 0]).sqrt()  # of the frame's side
        time = torch.linspace(0, 1, t, device=x.device) if t > 1 else x.new_zeros(1)
        end = torch.lerp(u["place"], u["end"], config.move)
        place = torch.lerp(u["place"][:, None], end[:, None], time[:, None])  # [M, T, 2]
        middle = (2 * place - 1) * (1 - width)[:, None, None]  # within the frame, from -1 to 1
        steps = (2 * torch.arange(size, device=x.device) + 1) / size - 1
        across = middle[..., :1] + width[:, None, None] * steps
        down = middle[..., 1:] + width[:, None, None] * steps
        mirrored = u["flip"][:, 0] < config.flip
        across = torch.where(mirrored[:, None, None], across.flip(2), across)
        shape = (m, t, size, size)
        grid = torch.stack([across[:, :, None].expand(shape), down[..., None].expand(shape)], dim=4)
        seen = F.grid_sample(
            x.flatten(0, 1), grid.flatten(0, 1), padding_mode="border", align_corners=False
        )
        seen = seen.unflatten(0, (m, t))
        if self.facts.shows == "flow":  # in pixels of the view
            zoom = (size / side / width)[:, None].repeat(1, c)
            zoom[:, 0] *= torch.where(mirrored, -1.0, 1.0)
            seen = seen * zoom[:, None, :, None, None]
        return seen

    def _in_other_light(
        self, x: Float[Tensor, "M T C s s"], u: Mapping[str, Tensor]
    ) -> Float[Tensor, "M T C s s"]:
        config, shape = self.config, (-1, 1, 1, 1, 1)
        bright = 1 + config.brightness * (2 * u["brightness"] - 1)
        x = x * bright.view(shape)
        contrast = (1 + config.contrast * (2 * u["contrast"] - 1)).view(shape)
        x = torch.lerp(x.mean((1, 2, 3, 4), keepdim=True), x, contrast).clamp(0, 1)
        if x.shape[2] == 3 and config.grey:
            gray = (x * constants(_GRAY, x)[:, None, None]).sum(2, keepdim=True)
            x = torch.where((u["grey"] < config.grey).view(shape), gray, x)
        return x
