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

from similitude.randomness import uniforms
from similitude.sample import Draw, View, ViewConfig
from similitude.text.tokens import PAD, tokens_of

_UNKNOWN = 1  # the number of what is unknown


@dataclass(frozen=True)
class TextFacts:
    """Facts about texts that views depend on.

    Attributes:
        vocabulary: Piece of each number.
        length: Tokens that are looked at.
    """

    vocabulary: tuple[str, ...]
    length: int

    @property
    def numbers(self) -> int:
        """Numbers of one input of a network."""
        return self.length


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
        tokens = tokens_of(rows.texts, self.facts.vocabulary, self.facts.length)
        return [
            tokens.masked_fill(hidden & (tokens != PAD), _UNKNOWN).to(rows.device)
            for hidden in choices
        ]
