"""Networks for texts.

Letters: N texts, L tokens, K entries of the vocabulary, D features.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn

from similitude.sample import NetworkConfig
from similitude.text.hugging_face import PREFIX, HuggingFaceText
from similitude.text.tokens import PAD, mean_of_tokens


class TextNetworkConfig(NetworkConfig):
    """Which network is trained and kept.

    Attributes:
        name: "bag" (the mean of its tokens' vectors), "transformer" (CLIP's, smaller), or
            "hf:NAME_OR_FOLDER", an encoder of Hugging Face's that begins with its own weights.
        entries: Of the vocabulary; set from the texts.
        length: Tokens of an input; set from the texts.
        width: Features, D; an encoder of Hugging Face's has its own.
        frozen: Whether the weights of an encoder of Hugging Face's stay as they are.
        blocks: Of the transformer.
        heads: Of its attention.
    """

    name: str = "bag"
    entries: int = Field(default=2, ge=2)
    length: int = Field(default=64, ge=1)
    width: int = Field(default=256, ge=1)
    blocks: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    frozen: bool = False

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ("bag", "transformer") and not name.startswith(PREFIX):
            raise ValueError(
                f"unknown network for texts {name!r}: there are bag, transformer, and hf: with a "
                "folder or a name"
            )
        return name

    @property
    def is_published(self) -> bool:
        """Whether it is an encoder of Hugging Face's, which has its own tokenizer."""
        return self.name.startswith(PREFIX)

    def preparing_snippet(self, data: Any, facts: Any) -> str:
        """Python that makes of texts what the network takes."""
        if facts.tokenizer:
            return f"""
from similitude.text.hugging_face import tokens_of_encoder

# features = backbone(tokens_of_encoder(["a text"], {facts.tokenizer!r}, {facts.length}))"""
        return f"""
from similitude.text.tokens import tokens_of

# vocabulary: that of the run's recipe.yaml
# features = backbone(tokens_of(["a text"], vocabulary, {facts.length}))"""

    def build(self) -> nn.Module:
        """The network with random weights, or an encoder with its own."""
        network: nn.Module
        if self.is_published:
            network = HuggingFaceText(self.name, frozen=self.frozen)
        else:
            network = (BagOfTokens if self.name == "bag" else TextTransformer)(self)
        network.built_from = self  # type: ignore[assignment]
        network.has_pretrained_weights = self.is_published  # type: ignore[assignment]
        return network


class BagOfTokens(nn.Module):
    """The mean of the vectors of a text's tokens, whatever their order."""

    reads_tokens = True

    def __init__(self, config: TextNetworkConfig) -> None:
        super().__init__()
        self.num_features = config.width
        self.embedding = nn.Embedding(config.entries, config.width, padding_idx=PAD)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Int[Tensor, "N L"]) -> Float[Tensor, "N D"]:
        """Features of texts; an empty one has those of nothing."""
        return self.norm(mean_of_tokens(self.embedding(tokens), tokens))


class TextTransformer(nn.Module):
    """A transformer over tokens, then their mean (CLIP, Sec. 2.4: the last token)."""

    reads_tokens = True

    def __init__(self, config: TextNetworkConfig) -> None:
        super().__init__()
        width = self.num_features = config.width
        self.embedding = nn.Embedding(config.entries, width, padding_idx=PAD)
        self.positions = nn.Parameter(0.01 * torch.randn(config.length, width))
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.blocks, nn.LayerNorm(width), enable_nested_tensor=False
        )
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Int[Tensor, "N L"]) -> Float[Tensor, "N D"]:
        """Features of texts; an empty one has those of its first padding."""
        empty = tokens == PAD
        empty[:, 0] = False  # attention over nothing is not a number
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        return mean_of_tokens(self.encoder(x, src_key_padding_mask=empty), tokens)
