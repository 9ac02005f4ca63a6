"""Videos as samples of a data set.

Letters: N videos, D numbers of a video, T frames, C channels, S side in pixels.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from similitude.devices import constants
from similitude.sample import MultiView, Samples
from similitude.video.films import Films, Frames
from similitude.video.views import Shown, VideoFacts

RAW_SIDE = 16  # of the mean frame
SHOWN = 4  # frames of a clip in a sheet
_AT_ONCE = 64  # videos of which something is computed together


@dataclass(frozen=True)
class VideoSet(Samples[Films]):
    """Some videos of a file of frames.

    Attributes:
        frames: Of the whole file.
        index: Numbers of these videos in it.
        shows: What is looked at: frames, gray frames, or flow.
    """

    frames: Frames
    index: Int[Tensor, " N"]
    shows: Shown
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None

    noun: ClassVar[str] = "videos"
    pictured: ClassVar[str] = "A picture of a video is its middle frame."

    @property
    def raw_name(self) -> str:  # type: ignore[override]
        """The row of the mean frame."""
        return "mean flow" if self.shows == "flow" else "mean frame"

    @property
    def seconds(self) -> Float[np.ndarray, " N"]:
        """Length of each."""
        return self.frames.length[self.index.numpy()] / self.frames.rate

    def take(self, index: Int[Tensor, " M"] | slice) -> Films:
        """The videos at these positions."""
        return Films(self.frames, self.index[index])

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "VideoSet":
        """The videos at these positions, in that order."""
        rows = torch.arange(len(self))[
            index if isinstance(index, slice) else torch.as_tensor(index)
        ]
        return replace(
            self,
            index=self.index[rows],
            names=[self.names[i] for i in rows.tolist()],
            labels=None if self.labels is None else self.labels[rows],
            partners=None,
        )

    def clean(self, rows: Films, facts: VideoFacts) -> Float[Tensor, "N C T S S"]:
        """The middle of each video, as many frames as the facts say."""
        return facts.normalized(facts.shown(rows.middle(facts.frames)))

    def raw(self, beside: Sequence["VideoSet"] = ()) -> Float[Tensor, "N D"]:
        """The mean of all frames, at 16 x 16 pixels."""

        def mean(x: Float[Tensor, "T C S S"]) -> Float[Tensor, " D"]:
            side = min(RAW_SIDE, x.shape[2])
            return F.adaptive_avg_pool2d(x.mean(0, keepdim=True), side).flatten()

        return self._of_each(mean)

    def baselines(self) -> dict[str, Float[Tensor, "N D"]]:
        """Motion energy: how much a frame differs from the next, or flows; three numbers.

        Mean, standard deviation and maximum over time of the mean absolute difference.
        """

        def energy(x: Float[Tensor, "T C S S"]) -> Float[Tensor, " 3"]:
            moved = x if self.shows == "flow" else x.diff(dim=0) if len(x) > 1 else x * 0
            over_time = moved.abs().mean((1, 2, 3))
            return torch.stack([over_time.mean(), over_time.std(correction=0), over_time.max()])

        return {"motion energy": self._of_each(energy)}

    def _of_each(self, numbers: Any) -> Float[Tensor, "N D"]:
        plain = VideoFacts(self.shows, 1, 1, (0.0,), (1.0,))
        found = []
        for video in self.index.tolist():
            start, length = int(self.frames.start[video]), int(self.frames.length[video])
            rows = torch.from_numpy(np.asarray(self.frames.rows[start : start + length]))
            found.append(numbers(plain.shown(rows[None])[0]))
        return torch.stack(found)

    def sheet(self, views: MultiView, facts: VideoFacts, *, seed: int) -> Image.Image:
        """A row for each of some videos: frames of its clip, then of its views."""
        some = self.spread(8)
        rows = some.take(slice(None))
        made = views(rows, torch.arange(len(some)), seed=seed, epoch=0)
        columns = []
        for clips in [some.clean(rows, facts), *made]:
            frames = clips.shape[2]
            picked = [i * frames // SHOWN for i in range(SHOWN)] if frames >= SHOWN else [0]
            std, mean = constants(facts.std, clips), constants(facts.mean, clips)
            for i in picked:
                shown = clips[:, :, i] * std[:, None, None] + mean[:, None, None]
                tiles = _pictures(shown, facts.size)
                columns.append(np.concatenate(list(tiles), axis=0))
            columns.append(np.full((columns[-1].shape[0], 3, 3), 255, np.uint8))
        return Image.fromarray(np.concatenate(columns[:-1], axis=1))

    def copies(self) -> float:
        """The share of the videos that are equal to another one, 0..1."""
        frames = self.frames
        kinds = {
            zlib.crc32(frames.rows[s : s + n].tobytes())
            for i in self.index.tolist()
            for s, n in [(int(frames.start[i]), int(frames.length[i]))]
        }
        return 1 - len(kinds) / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """The middle frame of each."""
        plain = VideoFacts(self.shows, 1, 1, (0.0,), (1.0,))
        films = self.take(slice(None))
        parts = []
        for i in range(0, len(self), _AT_ONCE):
            some = replace(films, index=films.index[i : i + _AT_ONCE])
            parts.append(_pictures(plain.shown(some.middle(1))[:, 0], side))
        return np.concatenate(parts)


def _pictures(x: Float[Tensor, "N C S S"], side: int) -> UInt8[np.ndarray, "N s s 3"]:
    """RGB of frames; of flow blue and green for right and down, white where nothing moves."""
    if x.shape[1] == 2:
        most = x.abs().amax((1, 2, 3), keepdim=True).clamp_min(1.0)
        across, down = (x / most).unbind(1)
        x = torch.stack([1 - down.abs(), 1 - across.abs(), 1 - (across + down).relu()], dim=1)
    square = F.interpolate(x.clamp(0, 1), (side, side), mode="area")
    pixels = (255 * square).round().to(torch.uint8).permute(0, 2, 3, 1)
    return pixels.expand(-1, -1, -1, 3).contiguous().numpy()
