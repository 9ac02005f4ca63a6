"""Random views of sounds: cut, changed as a wave form, then as a spectrogram.

Letters: N clips, V views, M = V N, S samples of a cut, F mel bands, T frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from similitude.audio.clips import Clips, Waves
from similitude.audio.spectrograms import EPSILON, Mel, log_mel
from similitude.devices import moved
from similitude.errors import UserError
from similitude.randomness import uniforms
from similitude.sample import Draw, View, ViewConfig

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Strength = Annotated[float, Field(ge=0.0)]

_CANVAS = 1.5  # of the frames: how much longer the canvas is on which a crop is placed


@dataclass(frozen=True)
class AudioFacts:
    """Facts about the sounds of a data set that views depend on.

    Attributes:
        mel: How spectrograms are computed.
        seconds: Of a clip as evaluations see it.
        mean: Of the log-mel spectrograms, over all bands and frames.
        std: Likewise; positive.
        raw: Whether networks are given wave forms, not spectrograms.
    """

    mel: Mel
    seconds: float
    mean: float
    std: float
    raw: bool = False

    @property
    def numbers(self) -> int:
        """Numbers of one input of a network."""
        samples = round(self.seconds * self.mel.rate)
        return samples if self.raw else self.mel.bands * self.mel.frames(samples)

    def normalized(self, waves: Float[Tensor, "N S"]) -> Float[Tensor, "N 1 F T"]:
        """Log-mel spectrograms of mean 0 and standard deviation 1 over the data set."""
        return log_mel(waves, self.mel).sub_(self.mean).div_(self.std)


class AudioViewConfig(ViewConfig):
    """How one view is drawn from a clip.

    The operations run in this order: cut, speed, reverb, noise, gain; then, on the normalized
    spectrogram, mix, resize, fade, masks. Defaults are those of BYOL-A (Niizumi et al. 2021, v1).

    Attributes:
        seconds: Length of the cut; None takes the clip as evaluations see it.
        speed: Largest change of speed and so of pitch, in semitones up or down.
        reverb: Probability of a room: noise that decays by 60 dB in ``reverb_seconds``.
        reverb_seconds: Shortest and longest decay.
        noise: Probability of white noise.
        noise_db: Smallest and largest ratio of the sound to the noise, in dB.
        gain_db: Largest change of loudness, in dB up or down.
        mix: Largest share of another clip that is mixed in: log((1 - a) e^x + a e^z) with a from
            U(0, mix) (BYOL-A, eq. 4). The paper draws z from the last 2,048 inputs; here it is a
            cut of any clip, which is what these are once there have been as many.
        resize: Whether a crop of the spectrogram is resized to the whole: its sides are
            ``resize_range`` of the bands and of the frames, placed on a canvas of all bands and
            1.5 times the frames, around the spectrogram (BYOL-A, Sec. III-C).
        resize_range: Smallest and largest side.
        fade: Largest height of a line that is added over time, from U(-fade, fade) at its
            beginning to U(-fade, fade) at its end (BYOL-A v2's random linear fader).
        mask_time: Share of the frames that one mask may hide, from none to all of it.
        mask_bands: Share of the bands that one mask may hide.
        hide_frames: Share of the pairs of frames that are 0, the data's mean; the view then has two
            channels, what is shown and what it was (Speech SimCLR, eq. 2).
        standardize: Subtract the mean and divide by the standard deviation of all views of the
            batch that are made alike (BYOL-A's normalization after the augmentations); the one
            thing in which a view depends on the others of its batch, of several processes on
            those of its own.
    """

    kind: Literal["audio"] = "audio"
    seconds: Positive | None = None
    speed: Strength = 0.0
    reverb: Probability = 0.0
    reverb_seconds: tuple[Positive, Positive] = (0.1, 0.5)
    noise: Probability = 0.0
    noise_db: tuple[float, float] = (5.0, 20.0)
    gain_db: Strength = 0.0
    mix: Share = 0.4
    resize: bool = True
    resize_range: tuple[Positive, Positive] = (0.6, 1.5)
    fade: Strength = 0.0
    mask_time: Share = 0.0
    mask_bands: Share = 0.0
    hide_frames: Share = 0.0
    standardize: bool = True

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "AudioViewConfig":
        for name in ("reverb_seconds", "noise_db", "resize_range"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is ({low:g}, {high:g}); give the smaller number first")
        return self

    def small(self, side: int) -> "AudioViewConfig":
        """Of the whole clip, however short it is."""
        return self.changed(seconds=None)

    def on(self, facts: AudioFacts) -> View[Clips]:
        """The view of sounds of which these facts are true."""
        return AudioView(self, facts)


# What is drawn for every view of a clip, and how many numbers.
_DRAWN = {
    "cut": 1,
    "speed": 1,
    "reverb": 2,
    "noise": 2,
    "gain": 1,
    "mix": 3,  # how much, of which clip, from where
    "resize": 4,  # height, width, place
    "fade": 2,
    "mask time": 2,
    "mask bands": 2,
}


@dataclass(frozen=True)
class AudioView(View[Clips]):
    """One random view of a clip."""

    config: AudioViewConfig
    facts: AudioFacts

    def __post_init__(self) -> None:
        changed = [
            n
            for n in ("mix", "fade", "mask_time", "mask_bands", "hide_frames")
            if getattr(self.config, n)
        ]
        if self.facts.raw and (changed or self.config.resize or self.config.standardize):
            raise UserError(
                "the network takes wave forms, and the view changes spectrograms: set resize and "
                f"standardize to false{' and to 0 ' if changed else ''}{', '.join(changed)}"
            )

    @property
    def samples(self) -> int:
        """Samples of a cut."""
        seconds = self.facts.seconds if self.config.seconds is None else self.config.seconds
        return max(1, round(seconds * self.facts.mel.rate))

    def draw(self, draw: Draw, rows: Clips) -> Mapping[str, Any]:
        """Numbers for every choice, and the seed of what is noise; M rows, view by view."""
        drawn = uniforms(draw.seed, draw.epoch, draw.index, draw.views, _DRAWN)
        return {**drawn, "views": len(draw.views), "draw": draw}

    def apply(self, rows: Clips, choices: Mapping[str, Any]) -> Sequence[Tensor]:
        """Wave forms [N, 1, S] or spectrograms [N, 1, F, T], one batch for each view."""
        config, facts, u, size = self.config, self.facts, choices, self.samples
        index = rows.index.repeat(u["views"])
        waves = moved(_cut(rows.waves, index, u["cut"][:, 0], size, self._speed(u)), rows.device)
        if config.reverb:
            waves = self._reverb(waves, u)
        if config.noise:
            waves = self._noise(waves, u)
        if config.gain_db:
            gain = 10 ** (config.gain_db * (2 * u["gain"] - 1) / 20)
            waves = waves * moved(gain, waves.device)
        if facts.raw:
            return waves[:, None].chunk(u["views"])
        x = facts.normalized(waves)
        if config.mix:
            which = (u["mix"][:, 1] * len(rows.waves)).long()
            other = moved(_cut(rows.waves, which, u["mix"][:, 2], size, None), rows.device)
            x = mix(x, facts.normalized(other), config.mix * moved(u["mix"][:, 0], x.device))
        if config.resize:
            x = resize_crop(x, config.resize_range, u["resize"])
        if config.fade:
            ends = config.fade * (2 * moved(u["fade"], x.device) - 1)
            along = torch.linspace(0, 1, x.shape[3], device=x.device)
            x = x + torch.lerp(ends[:, :1], ends[:, 1:], along)[:, None, None]
        if config.mask_time:
            x = _masked(x, 3, config.mask_time, u["mask time"])
        if config.mask_bands:
            x = _masked(x, 2, config.mask_bands, u["mask bands"])
        if config.hide_frames:
            x = self._hidden(x, u)
        if config.standardize:
            x = (x - x.mean()) / x.std().clamp_min(1e-5)
        return x.chunk(u["views"])

    def _hidden(self, x: Float[Tensor, "M 1 F T"], u: Mapping[str, Any]) -> Tensor:
        pairs = -(-x.shape[3] // 2)
        hidden = self._uniforms(u, "hidden", pairs) < self.config.hide_frames
        shown = ~moved(hidden.repeat_interleave(2, dim=1), x.device)[:, None, None, : x.shape[3]]
        return torch.cat([x * shown, x], dim=1)

    def _speed(self, u: Mapping[str, Any]) -> Float[Tensor, " M"] | None:
        if not self.config.speed:
            return None
        return 2 ** (self.config.speed * (2 * u["speed"][:, 0] - 1) / 12)

    def _white(self, u: Mapping[str, Any], purpose: str, size: int) -> Float[Tensor, "M size"]:
        """Noise of mean 0 and standard deviation 1 that depends on the draw alone."""
        return (2 * self._uniforms(u, purpose, size) - 1) * 3**0.5

    def _uniforms(self, u: Mapping[str, Any], purpose: str, size: int) -> Float[Tensor, "M size"]:
        draw: Draw = u["draw"]
        return uniforms(draw.seed, draw.epoch, draw.index, draw.views, {purpose: size})[purpose]

    def _reverb(self, waves: Float[Tensor, "M S"], u: Mapping[str, Any]) -> Float[Tensor, "M S"]:
        low, high = self.config.reverb_seconds
        rate, size = self.facts.mel.rate, waves.shape[1]
        decay = moved(low + (high - low) * u["reverb"][:, 1], waves.device)
        time = torch.arange(min(size, round(high * rate)), device=waves.device) / rate
        room = moved(self._white(u, "room", len(time)), waves.device)
        room = room * torch.exp(-6.9 * time / decay[:, None])  # 60 dB
        room = room / room.norm(dim=1, keepdim=True)
        n = size + len(time)
        wet = torch.fft.irfft(torch.fft.rfft(waves, n) * torch.fft.rfft(room, n), n)[:, :size]
        loudness = waves.norm(dim=1, keepdim=True) / wet.norm(dim=1, keepdim=True).clamp_min(1e-9)
        happens = moved(u["reverb"][:, :1] < self.config.reverb, waves.device)
        return torch.where(happens, (waves + loudness * wet) / 2, waves)

    def _noise(self, waves: Float[Tensor, "M S"], u: Mapping[str, Any]) -> Float[Tensor, "M S"]:
        low, high = self.config.noise_db
        decibel = low + (high - low) * moved(u["noise"][:, 1:], waves.device)
        loudness = waves.square().mean(1, keepdim=True).sqrt() * 10 ** (-decibel / 20)
        noise = moved(self._white(u, "white noise", waves.shape[1]), waves.device)
        happens = moved(u["noise"][:, :1] < self.config.noise, waves.device)
        return torch.where(happens, waves + loudness * noise, waves)


def _cut(
    waves: Waves,
    which: Int[Tensor, " M"],
    place: Float[Tensor, " M"],
    size: int,
    speed: Float[Tensor, " M"] | None,
) -> Float[Tensor, "M S"]:
    """A random part of each clip, of a shorter clip all with silence around; at another speed."""
    length = torch.from_numpy(waves.length)[which].double()
    wanted = torch.full_like(length, size) if speed is None else (size * speed.double()).ceil() + 1
    room = length - wanted
    begin = torch.where(room >= 0, 1.0, -1.0) * (place * (room.abs() + 1)).floor()
    begin = begin.long()
    cut = waves.cut(which, begin, size if speed is None else int(wanted.max()))
    if speed is None:
        return cut
    at = speed[:, None] * torch.arange(size)
    before = at.long()
    left, right = cut.gather(1, before), cut.gather(1, (before + 1).clamp_max(cut.shape[1] - 1))
    return torch.lerp(left, right, at - before)


def mix(
    x: Float[Tensor, "M 1 F T"], other: Float[Tensor, "M 1 F T"], share: Float[Tensor, " M"]
) -> Float[Tensor, "M 1 F T"]:
    """log((1 - a) e^x + a e^z): sounds add as powers, not as logarithms (BYOL-A, eq. 4).

    Args:
        x: Log-mel spectrograms.
        other: What is mixed in, z.
        share: a, for each.
    """
    a = share[:, None, None, None]
    return ((1 - a) * x.exp() + a * other.exp() + EPSILON).log()


def resize_crop(
    x: Float[Tensor, "M 1 F T"], sides: tuple[float, float], u: Float[Tensor, "M 4"]
) -> Float[Tensor, "M 1 F T"]:
    """A crop of a canvas around each spectrogram, resized to its size by bicubic interpolation.

    Args:
        x: Spectrograms, in the middle of a canvas of F bands and 1.5 T frames that is 0 elsewhere.
        sides: Smallest and largest side of the crop, as shares of F and of T.
        u: Uniform numbers: height, width, top, left.
    """
    bands, frames = x.shape[2:]
    canvas = int(frames * _CANVAS)
    low, high = sides
    height = ((low + (high - low) * u[:, 0]) * bands).long().clamp(1, bands)
    width = ((low + (high - low) * u[:, 1]) * frames).long().clamp(1, canvas)
    top = (u[:, 2] * (bands - height + 1)).long()
    left = (u[:, 3] * (canvas - width + 1)).long() - (canvas - frames) // 2

    def places(start: Tensor, size: Tensor, count: int, whole: int) -> Float[Tensor, "M count"]:
        steps = torch.linspace(0, 1, count)
        pixels = start[:, None] + (size[:, None] - 1) * steps
        return 2 * pixels / max(1, whole - 1) - 1  # -1 and 1: centers of the first and last

    rows, columns = places(top, height, bands, bands), places(left, width, frames, frames)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, bands, -1), rows[:, :, None].expand(-1, -1, frames)], dim=3
    )
    grid = moved(grid, x.device).to(x.dtype)
    return F.grid_sample(x, grid, mode="bicubic", padding_mode="zeros", align_corners=True)


def _masked(
    x: Float[Tensor, "M 1 F T"], dim: int, share: float, u: Float[Tensor, "M 2"]
) -> Float[Tensor, "M 1 F T"]:
    """With the mean of each spectrogram in the place of some rows or columns (SpecAugment)."""
    length = x.shape[dim]
    width = u[:, :1] * share * length
    start = u[:, 1:] * (length - width)
    position = torch.arange(length) + 0.5
    hidden = moved((position >= start) & (position < start + width), x.device)
    shape = [len(x), 1, 1, 1]
    shape[dim] = length
    return torch.where(hidden.view(shape), x.mean(dim=(2, 3), keepdim=True), x)
