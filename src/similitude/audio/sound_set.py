"""Sounds as samples of a data set.

Letters: N sounds, D numbers of a sound, F mel bands, T frames.
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

from similitude.audio.clips import Clips, Waves
from similitude.audio.decoding import encode
from similitude.audio.spectrograms import Mel, log_mel, mfcc
from similitude.audio.views import AudioFacts
from similitude.sample import MultiView, Samples

SECTIONS = 16  # of time and of the bands, in which raw log-mel is averaged
COEFFICIENTS = 20  # of MFCC
HEARD, PAUSE = 3.0, 0.1  # seconds of a sound that a page plays, and of silence after it
_AT_ONCE = 256  # sounds whose spectrograms are computed together


@dataclass(frozen=True)
class SoundSet(Samples[Clips]):
    """Some sounds of a file of wave forms.

    Attributes:
        waves: Of the whole file.
        index: Numbers of these sounds in it.
    """

    waves: Waves
    index: Int[Tensor, " N"]
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None

    noun: ClassVar[str] = "sounds"
    raw_name: ClassVar[str] = "raw log-mel"
    pictured: ClassVar[str] = "A picture of a sound is its spectrogram, low tones below."
    can_be_heard: ClassVar[bool] = True

    def take(self, index: Int[Tensor, " M"] | slice) -> Clips:
        """The sounds at these positions."""
        return Clips(self.waves, self.index[index])

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "SoundSet":
        """The sounds at these positions, in that order; any of all may still be mixed in."""
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

    @property
    def seconds(self) -> Float[np.ndarray, " N"]:
        """Length of each."""
        return self.waves.length[self.index.numpy()] / self.waves.rate

    def clean(self, rows: Clips, facts: AudioFacts) -> Float[Tensor, "N 1 F T"] | Any:
        """The middle of each clip, as long as the facts say."""
        waves = rows.middle(max(1, round(facts.seconds * facts.mel.rate)))
        return waves[:, None] if facts.raw else facts.normalized(waves)

    def raw(self, beside: Sequence["SoundSet"] = ()) -> Float[Tensor, "N D"]:
        """Log-mel spectrograms averaged in 16 x 16 sections: of time, and of the bands."""
        size = (SECTIONS, SECTIONS)
        return self._over(lambda x: F.adaptive_avg_pool2d(x, size).flatten(1), beside)

    def baselines(self) -> dict[str, Float[Tensor, "N D"]]:
        """What else is plain numbers: statistics of each band, and of MFCC."""

        def statistics(x: Float[Tensor, "N 1 F T"]) -> Float[Tensor, "N D"]:
            bands = x[:, 0]
            return torch.cat([bands.mean(2), bands.std(2), bands.amax(2)], dim=1)

        def coefficients(x: Float[Tensor, "N 1 F T"]) -> Float[Tensor, "N D"]:
            found = mfcc(x[:, 0], COEFFICIENTS)
            return torch.cat([found.mean(2), found.std(2)], dim=1)

        return {"log-mel statistics": self._over(statistics), "MFCC": self._over(coefficients)}

    def _over(self, numbers: Any, beside: Sequence["SoundSet"] = ()) -> Float[Tensor, "N D"]:
        """Numbers of the spectrograms of the middle of each sound, all of one length."""
        size = int(np.median(self.waves.length))  # of the whole file, so of its other part too
        mel = plain_mel(self.waves.rate)
        parts = [
            numbers(log_mel(self.take(slice(i, i + _AT_ONCE)).middle(size), mel))
            for i in range(0, len(self), _AT_ONCE)
        ]
        return torch.cat(parts)

    def sheet(self, views: MultiView, facts: AudioFacts, *, seed: int) -> Image.Image:
        """The spectrograms of some sounds, a row each, beside those of their views."""
        some = self.spread(8)
        rows = some.take(slice(None))
        made = views(rows, torch.arange(len(some)), seed=seed, epoch=0)
        columns = [some.clean(rows, facts), *made]
        if facts.raw:
            columns = [log_mel(x[:, 0], facts.mel) for x in columns]
        tiles = [_pictures(x[:, 0], 64) for x in columns]
        picture = np.concatenate([np.concatenate(list(tile), axis=0) for tile in tiles], axis=1)
        return Image.fromarray(picture)

    def copies(self) -> float:
        """The share of the sounds that are equal to another one, 0..1."""
        waves = self.waves
        kinds = {
            zlib.crc32(waves.samples[s : s + n].tobytes())
            for i in self.index.tolist()
            for s, n in [(int(waves.start[i]), int(waves.length[i]))]
        }
        return 1 - len(kinds) / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """The spectrogram of each sound, low frequencies below, as a square."""
        mel = plain_mel(self.waves.rate)
        size = int(np.median(self.waves.length))
        parts = [
            _pictures(log_mel(self.take(slice(i, i + _AT_ONCE)).middle(size), mel)[:, 0], side)
            for i in range(0, len(self), _AT_ONCE)
        ]
        return np.concatenate(parts)

    def track(self) -> tuple[bytes, Float[np.ndarray, "N 2"]]:
        """The first seconds of each sound, with a pause after each, as MP3."""
        waves, pause = self.waves, np.zeros(round(PAUSE * self.waves.rate), np.int16)
        most, parts, times, now = round(HEARD * waves.rate), [], [], 0
        for clip in self.index.tolist():
            start, size = int(waves.start[clip]), min(most, int(waves.length[clip]))
            parts += [waves.samples[start : start + size], pause]
            times.append((now, now + size))
            now += size + len(pause)
        return encode(np.concatenate(parts), waves.rate), np.array(times) / waves.rate


def plain_mel(rate: int) -> Mel:
    """Spectrograms of baselines and pictures: 64 bands of frames of 64 ms, every 10 ms."""
    window = 2 ** round(np.log2(0.064 * rate))
    return Mel(rate, window, max(1, rate // 100), 64, 60.0, min(7800.0, rate / 2))


def _pictures(x: Float[Tensor, "N F T"], side: int) -> UInt8[np.ndarray, "N s s 3"]:
    """Loud is dark, from the softest to the loudest place of each."""
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    shown = (x - low) / (high - low).clamp_min(1e-6)
    square = F.interpolate(shown.flip(1)[:, None], (side, side), mode="area")
    pixels = (255 * (1 - square)).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).contiguous().numpy()
