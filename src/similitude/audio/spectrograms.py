"""Wave forms to log-mel spectrograms, as librosa computes them.

Letters: N wave forms, S samples of each, F mel bands, T frames.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from similitude.devices import moved

EPSILON = torch.finfo(torch.float32).eps  # keeps the logarithm of silence finite


@dataclass(frozen=True)
class Mel:
    """How a spectrogram is computed.

    Attributes:
        rate: Samples in a second.
        window: Samples of a frame, under a Hann window.
        hop: Samples from one frame to the next.
        bands: F.
        low: Lowest frequency in Hz.
        high: Highest frequency in Hz, at most half the rate.
    """

    rate: int
    window: int
    hop: int
    bands: int
    low: float
    high: float

    def frames(self, samples: int) -> int:
        """Frames T of so many samples: the first and the last one are centered at the ends."""
        return 1 + samples // self.hop


def log_mel(waves: Float[Tensor, "N S"], mel: Mel) -> Float[Tensor, "N 1 F T"]:
    """Natural logarithm of the power in each mel band, plus the smallest float32 epsilon.

    As ``librosa.feature.melspectrogram`` with its defaults (Slaney's scale and areas, frames
    centered, silence beyond the ends): within 1e-4 of its largest value before the logarithm.
    """
    power = _power(waves, mel.window, mel.hop)
    filters = moved(mel_filters(mel), waves.device)
    return (filters @ power).add_(EPSILON).log_()[:, None]


def _power(waves: Float[Tensor, "N S"], window: int, hop: int) -> Float[Tensor, "N W T"]:
    hann = torch.hann_window(window, device=waves.device)
    found = torch.stft(
        waves, window, hop, window=hann, center=True, pad_mode="constant", return_complex=True
    )
    return found.real.square() + found.imag.square()


@lru_cache(maxsize=8)
def mel_filters(mel: Mel) -> Float[Tensor, "F W"]:
    """Triangles of equal area over the frequencies of a Fourier transform (Slaney 1998)."""
    edges = _to_hz(
        torch.linspace(_to_mel(mel.low), _to_mel(mel.high), mel.bands + 2, dtype=torch.float64)
    )
    bins = torch.linspace(0, mel.rate / 2, 1 + mel.window // 2, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    height = 2 / (edges[2:] - edges[:-2])
    return (torch.minimum(rising, falling).clamp_min(0) * height[:, None]).float()


# Slaney's scale: linear up to 1,000 Hz, then 27 steps for each factor of 6.4.
_HZ_PER_MEL, _KNEE, _STEP = 200 / 3, 1000.0, math.log(6.4) / 27


def _to_mel(hz: float) -> float:
    if hz < _KNEE:
        return hz / _HZ_PER_MEL
    return _KNEE / _HZ_PER_MEL + math.log(hz / _KNEE) / _STEP


def _to_hz(mels: Tensor) -> Tensor:
    knee = _KNEE / _HZ_PER_MEL
    return torch.where(mels < knee, mels * _HZ_PER_MEL, _KNEE * ((mels - knee) * _STEP).exp())


def mfcc(log_mels: Float[Tensor, "N F T"], count: int) -> Float[Tensor, "N count T"]:
    """The first coefficients of the cosine transform (type 2, orthonormal) over the bands."""
    bands = log_mels.shape[1]
    k = torch.arange(count, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / bands * (torch.arange(bands) + 0.5) * k) * math.sqrt(2 / bands)
    basis[0] /= math.sqrt(2)
    return basis.to(log_mels) @ log_mels
