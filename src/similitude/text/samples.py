"""Texts as one of the kinds of data. They come as a column of a table, beside other sensors."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from similitude.data.source import Source
from similitude.errors import UserError, visible
from similitude.modalities import Modality
from similitude.sample import DataConfig, ViewConfig
from similitude.text.networks import BagOfTokens, TextNetworkConfig
from similitude.text.text_set import Texts, TextSet
from similitude.text.tokens import PADDING, UNKNOWN
from similitude.text.views import TextFacts, TextViewConfig


class TextData(DataConfig):
    """What a recipe decides of texts.

    Attributes:
        vocabulary: Pieces of words by number; learned from the texts where it is empty.
        entries: Of a vocabulary that is learned, at most.
        length: Tokens of a text that are looked at.
        tokenizer: "hf:NAME_OR_FOLDER", whose tokens are taken; set from the network.
    """

    kind: Literal["text"] = "text"
    vocabulary: tuple[str, ...] = ()
    entries: int = Field(default=4096, ge=2)
    length: int = Field(default=64, ge=1)
    tokenizer: str = ""

    def facts(self, views: Collection[ViewConfig]) -> TextFacts:
        """Vocabulary and length."""
        return TextFacts(self.vocabulary or (PADDING, UNKNOWN), self.length, self.tokenizer)

    def noise(self, number: int) -> Texts:
        """The same words again and again."""
        words = self.vocabulary[2:] or ("word",)
        return Texts((" ".join((words * self.length)[: self.length]),) * number)

    def training_view(self, views: Collection[ViewConfig]) -> TextViewConfig:
        """The text as it is."""
        return TextViewConfig()


@dataclass(frozen=True, kw_only=True)
class TextSource(Source):
    """Texts that are in memory already."""

    texts: list[str]

    def fingerprint(self) -> str:
        """A hash of all texts."""
        return sha256("\0".join(self.texts).encode()).hexdigest()


class TextKind(Modality):
    """Texts, which no file holds alone."""

    kind = "text"
    noun = "texts"
    data_config = TextData
    network_config = TextNetworkConfig
    view_configs: ClassVar[Mapping[str, type]] = {"text": TextViewConfig}

    def claims(self, data: Any) -> bool:
        """Texts in memory alone."""
        return isinstance(data, TextSource)

    def open_training(
        self, data: Any, config: TextData | None, *, resumed: bool = False
    ) -> TextSource:
        """What is in memory."""
        return self._opened(data)

    def open_part(self, data: Any, split: str | None, config: TextData) -> TextSource:
        """What is in memory."""
        return self._opened(data)

    def open_parts(self, data: Any, config: TextData | None) -> list[TextSource]:
        """What is in memory."""
        return [self._opened(data)]

    def of_texts(self, name: str, texts: list[str], config: Any = None) -> TextSource:
        """Texts that are their own names."""
        return TextSource(name=name, names=[visible(text) for text in texts], texts=texts)

    def load(
        self,
        source: TextSource,
        config: TextData,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> TextSet:
        """The texts of a source."""
        return TextSet(source.texts, list(source.names), source.labels, source.class_names)

    def load_some(self, source: TextSource, positions: Sequence[int], config: TextData) -> TextSet:
        """Some of its texts."""
        return self.load(source, config).subset(positions)

    def tiny(self, method: str, side: int, features: int) -> tuple[TextData, nn.Module]:
        """Texts of a few tokens."""
        words = tuple(torch.arange(side).add(97).to(torch.uint8).numpy().tobytes().decode())
        vocabulary = (PADDING, UNKNOWN, *words)
        network = BagOfTokens(TextNetworkConfig(entries=len(vocabulary), width=features))
        return TextData(vocabulary=vocabulary, length=side), network

    @staticmethod
    def _opened(data: Any) -> TextSource:
        if not isinstance(data, TextSource):
            raise UserError(
                f"{data} has no texts: name a table (CSV or Parquet) with a column of them"
            )
        return data


MODALITY = TextKind()
