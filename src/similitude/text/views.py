"""Random views of texts: some tokens are hidden.

Letters: N texts, V views, M = V N, L tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field
from torch import Tensor

from similitude.devices import moved
from similitude.randomness import uniforms
from similitude.sample import Draw, View, ViewConfig
from similitude.text.hugging_face import tokens_of_encoder
from similitude.text.tokens import PAD, UNKNOWN_NUMBER, tokens_of


@dataclass(frozen=True)
class TextFacts:
    """Facts about texts that views depend on.

    Attributes:
        vocabulary: Piece of each number.
        length: Tokens that are looked at.
        tokenizer: Of an encoder, which is used in the place of the vocabulary; or empty.
    """

    vocabulary: tuple[str, ...]
    length: int
    tokenizer: str = ""

    @property
    def numbers(self) -> int:
        """Numbers of one input of a network."""
        return self.length

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "N L"]:
        """The numbers of the tokens of each text: 0 for padding, 1 for what is unknown."""
        if self.tokenizer:
            return tokens_of_encoder(texts, self.tokenizer, self.length)
        return tokens_of(texts, self.vocabulary, self.length)


class TextViewConfig(ViewConfig):
    """How one view is drawn from a text.

    Attributes:
        hide: Probability with which each token becomes an unknown one.
    """

    kind: Literal["text"] = "text"
    hide: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def on(self, facts: TextFacts) -> View[Any]:
        """The view of texts of which these facts are true."""
        return TextView(self, facts)


@dataclass(frozen=True)
class TextView(View[Any]):
    """One random view of a text."""

    config: TextViewConfig
    facts: TextFacts

    def draw(self, draw: Draw, rows: Any) -> Bool[Tensor, "V N L"]:
        """Which tokens are hidden."""
        length = self.facts.length
        if not self.config.hide:
            return torch.zeros(len(draw.views), len(rows), length, dtype=torch.bool)
        drawn = uniforms(draw.seed, draw.epoch, draw.index, draw.views, {"hidden token": length})
        hidden = drawn["hidden token"] < self.config.hide
        return hidden.view(len(draw.views), len(rows), length)

    def apply(self, rows: Any, choices: Bool[Tensor, "V N L"]) -> Sequence[Int[Tensor, "N L"]]:
        """Tokens [N, L], one batch for each view."""
        tokens = self.facts.tokens(rows.texts)
        return [
            moved(tokens.masked_fill(hidden & (tokens != PAD), UNKNOWN_NUMBER), rows.device)
            for hidden in choices
        ]
