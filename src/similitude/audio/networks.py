"""Networks for sounds.

Letters: N clips, F mel bands, T frames, C channels, D features, S samples.
"""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.devices import moved
from similitude.sample import NetworkConfig


class AudioNetworkConfig(NetworkConfig):
    """Which network is trained and kept.

    Attributes:
        name: "byol_a" (Niizumi et al. 2021), "byol_a_v2" (2022), "transformer" (of frames, as
            Speech SimCLR's), "cpc" (of wave forms), or "timm:NAME": any network of timm, on
            spectrograms as images of one channel.
        bands: Mel bands of its input; set from the data.
        channels: Of BYOL-A's or CPC's convolutions.
        hidden: Of the layers after them; of each frame in the transformer, of CPC's GRU.
        blocks: Of the transformer.
        heads: Of its attention.
        segments: Equal parts of the time in each of which its frames are averaged.
    """

    name: str = "byol_a_v2"
    bands: int = Field(default=64, ge=8)
    channels: int = Field(default=64, ge=1)
    hidden: int = Field(default=2048, ge=1)
    blocks: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    segments: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)

    input_channels: ClassVar[int] = 1

    def build(self) -> nn.Module:
        """The network with random weights."""
        network = self._built()
        network.built_from = self  # type: ignore[assignment]
        network.has_pretrained_weights = False  # type: ignore[assignment]
        return network

    def preparing_snippet(self, data: Any, facts: Any) -> str:
        """Python that makes of wave forms what the network takes."""
        inputs = "waves[:, None]" if facts.raw else "facts.normalized(waves)"
        return f"""
from similitude.audio.spectrograms import Mel
from similitude.audio.views import AudioFacts

facts = {facts!r}
# waves: [N, samples] at {facts.mel.rate} samples a second, in [-1, 1] (of 16 bits: / 32768).
# Of any length: `embed` takes the middle {facts.seconds:g} s, with silence around what is shorter.
features = backbone({inputs})"""

    def _built(self) -> nn.Module:
        if self.name == "byol_a":
            return ConvolutionsAndFrames(self.bands, self.channels, 3, self.hidden, self.dropout)
        if self.name == "byol_a_v2":
            shape = (self.bands, self.channels, 2, self.hidden, self.dropout)
            return ConvolutionsAndFrames(*shape, with_convolutions=True)
        if self.name == "transformer":
            shape = (self.bands, self.hidden, self.blocks, self.heads, self.segments)
            return FrameTransformer(*shape, self.dropout)
        if self.name == "cpc":
            return Predictive(self.channels, self.hidden)
        import timm  # takes a second

        network: Any = timm.create_model(self.name.removeprefix("timm:"), in_chans=1, num_classes=0)
        return network


class ConvolutionsAndFrames(nn.Module):
    """BYOL-A's network: convolutions, two layers for each frame, then maximum and mean over time.

    (conv 3 x 3, BatchNorm, ReLU, max-pooling by 2) x blocks; linear, ReLU, dropout, linear, ReLU on
    the C F / 2^blocks numbers of a frame. The second version has two blocks and keeps what enters
    the layers beside what leaves them, so that D = C F / 4 + hidden (3,072 as published).
    """

    def __init__(
        self,
        bands: int,
        channels: int,
        blocks: int,
        hidden: int,
        dropout: float,
        *,
        with_convolutions: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers += [
                nn.Conv2d(1 if block == 0 else channels, channels, 3, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        numbers = channels * -(-bands // 2**blocks)
        self.frames = nn.Sequential(
            nn.Linear(numbers, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.with_convolutions = with_convolutions
        self.num_features = hidden + with_convolutions * numbers

    def forward(self, x: Float[Tensor, "N 1 F T"]) -> Float[Tensor, "N D"]:
        """Features of spectrograms of any length."""
        maps = self.convolutions(x)
        frames = maps.permute(0, 3, 2, 1).flatten(2)  # [N, T / 2^blocks, F C / 2^blocks]
        found = self.frames(frames)
        if self.with_convolutions:
            found = torch.cat([frames, found], dim=2)
        return found.amax(dim=1) + found.mean(dim=1)


class PairTransformer(nn.Module):
    """A transformer over pairs of frames."""

    def __init__(self, bands: int, width: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Linear(2 * bands, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, blocks, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, x: Float[Tensor, "N C F T"]) -> Float[Tensor, "N t D"]:
        """A vector for each pair of frames."""
        embedded = self.embedding(pairs_of_frames(x))
        places = moved(positions(*embedded.shape[1:]), embedded.device)
        return self.encoder(embedded + places.to(embedded.dtype))


class FrameTransformer(nn.Module):
    """A transformer over pairs of frames, then means over time (Speech SimCLR, Sec. 2.3)."""

    def __init__(
        self, bands: int, width: int, blocks: int, heads: int, segments: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_features, self.segments, self.width = segments * width, segments, width
        self.inner = PairTransformer(bands, width, blocks, heads, dropout)

    def forward(self, x: Float[Tensor, "N C F T"]) -> Float[Tensor, "N D"]:
        """Features of spectrograms of any length; channels after the first are not looked at."""
        return self.pooled(self.inner(x))

    def pooled(self, frames: Float[Tensor, "N t D"]) -> Float[Tensor, "N sD"]:
        """The means over segments of the time, side by side."""
        return F.adaptive_avg_pool1d(frames.transpose(1, 2), self.segments).flatten(1)


def pairs_of_frames(x: Float[Tensor, "N C F T"]) -> Float[Tensor, "N t 2*F"]:
    """Two frames of the first channel side by side; the last of an odd number is left out."""
    n, _, bands, frames = x.shape
    even = x[:, 0, :, : frames // 2 * 2].transpose(1, 2)
    return even.reshape(n, frames // 2, 2 * bands)


def positions(count: int, width: int) -> Float[Tensor, "count width"]:
    """Sines and cosines of the position (Vaswani et al. 2017, Sec. 3.5)."""
    place = torch.arange(count)[:, None]
    rate = 10_000 ** (-torch.arange(0, width, 2) / width)
    waves = torch.stack([(place * rate).sin(), (place * rate).cos()], dim=2)
    return waves.flatten(1)[:, :width]


class LatentsAndContexts(nn.Module):
    """Strided convolutions, then a GRU; a latent for every 160 samples, which sees about 465."""

    KERNELS, STRIDES = (10, 8, 4, 4, 4), (5, 4, 2, 2, 2)

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (kernel, stride) in enumerate(zip(self.KERNELS, self.STRIDES, strict=True)):
            given = 1 if number == 0 else channels
            layers += [
                nn.Conv1d(given, channels, kernel, stride, (kernel - stride + 1) // 2),
                ChannelNorm(channels),
                nn.ReLU(),
            ]
        self.encoder = nn.Sequential(*layers)
        self.gru = nn.GRU(channels, context, batch_first=True)

    @classmethod
    def samples_for(cls, latents: int) -> int:
        """Samples of the shortest wave form that has so many latents."""
        number = latents
        for kernel, stride in zip(reversed(cls.KERNELS), reversed(cls.STRIDES), strict=True):
            number = (number - 1) * stride + kernel - 2 * ((kernel - stride + 1) // 2)
        return number

    def forward(self, x: Float[Tensor, "N 1 S"]) -> Float[Tensor, "N t K"]:
        """The latent of each time, then its context, which knows nothing of later ones."""
        latents = self.encoder(x).transpose(1, 2)
        return torch.cat([latents, self.gru(latents)[0]], dim=2)


class Predictive(nn.Module):
    """CPC's network for wave forms (arXiv:1807.03748, Sec. 3.1): a latent for every 10 ms."""

    def __init__(self, channels: int, context: int) -> None:
        super().__init__()
        self.latent_dim, self.num_features = channels, context
        self.inner = LatentsAndContexts(channels, context)

    def forward(self, x: Float[Tensor, "N 1 S"]) -> Float[Tensor, "N D"]:
        """The mean of the contexts of wave forms of any length."""
        return self.inner(x)[:, :, self.latent_dim :].mean(dim=1)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each time: a norm over time would let latents see others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Float[Tensor, "N C t"]) -> Float[Tensor, "N C t"]:
        """The same, of mean 0 and variance 1, scaled and shifted."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2)
