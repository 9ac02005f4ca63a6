"""Networks for sounds.

Letters: N clips, F mel bands, T frames, C channels, D features, S samples.
"""

from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from similitude.sample import NetworkConfig


class AudioNetworkConfig(NetworkConfig):
    """Which network is trained and kept.

    Attributes:
        name: "byol_a" (Niizumi et al. 2021), "byol_a_v2" (2022), "transformer" (of frames, as
            Speech SimCLR's), or "timm:NAME": any network of timm, on spectrograms as images of
            one channel.
        bands: Mel bands of its input; set from the data.
        channels: Of BYOL-A's convolutions.
        hidden: Of the layers after them; of each frame in the transformer.
        blocks: Of the transformer.
        heads: Of its attention.
    """

    name: str = "byol_a_v2"
    bands: int = Field(default=64, ge=8)
    channels: int = Field(default=64, ge=1)
    hidden: int = Field(default=2048, ge=1)
    blocks: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)

    def build(self) -> nn.Module:
        """The network with random weights."""
        network = self._built()
        network.built_from = self  # type: ignore[assignment]
        network.has_pretrained_weights = False  # type: ignore[assignment]
        return network

    def _built(self) -> nn.Module:
        if self.name == "byol_a":
            return ConvolutionsAndFrames(self.bands, self.channels, 3, self.hidden, self.dropout)
        if self.name == "byol_a_v2":
            shape = (self.bands, self.channels, 2, self.hidden, self.dropout)
            return ConvolutionsAndFrames(*shape, with_convolutions=True)
        if self.name == "transformer":
            return FrameTransformer(self.bands, self.hidden, self.blocks, self.heads, self.dropout)
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


class FrameTransformer(nn.Module):
    """A transformer over pairs of frames, then the mean over time (Speech SimCLR, Sec. 2.3)."""

    def __init__(self, bands: int, width: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_features = width
        self.embedding = nn.Linear(2 * bands, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, blocks, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def frames(self, x: Float[Tensor, "N 1 F T"]) -> Float[Tensor, "N t D"]:
        """A vector for each pair of frames; the last of an odd number is left out."""
        n, _, bands, frames = x.shape
        pairs = x[:, 0, :, : frames // 2 * 2].transpose(1, 2).reshape(n, frames // 2, 2 * bands)
        embedded = self.embedding(pairs)
        return self.encoder(embedded + positions(frames // 2, embedded.shape[2]).to(embedded))

    def forward(self, x: Float[Tensor, "N 1 F T"]) -> Float[Tensor, "N D"]:
        """Features of spectrograms of any length."""
        return self.frames(x).mean(dim=1)


def positions(count: int, width: int) -> Float[Tensor, "count width"]:
    """Sines and cosines of the position (Vaswani et al. 2017, Sec. 3.5)."""
    place = torch.arange(count)[:, None]
    rate = 10_000 ** (-torch.arange(0, width, 2) / width)
    waves = torch.stack([(place * rate).sin(), (place * rate).cos()], dim=2)
    return waves.flatten(1)[:, :width]
