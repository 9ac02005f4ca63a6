"""Texts as samples.

Letters: N texts, D numbers of a text, L tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from textwrap import wrap
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from similitude.devices import moved
from similitude.sample import MultiView, Samples
from similitude.text.views import TextFacts

COLUMNS = 1024  # of a bag of words, into which words are hashed
_SHOWN = 160  # pixels of a picture of a text


@dataclass(frozen=True)
class Texts:
    """The texts of a batch."""

    texts: tuple[str, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device) -> "Texts":
        """The same, whose tokens go to a device."""
        return replace(self, device=torch.device(device))


@dataclass(frozen=True)
class TextSet(Samples[Texts]):
    """Some texts, in memory."""

    texts: list[str]
    names: list[str]
    labels: Int[Tensor, " N"] | None = None
    class_names: list[str] | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    partners: Int[Tensor, "N K"] | None = None

    noun: ClassVar[str] = "texts"
    raw_name: ClassVar[str] = "bag of words"
    is_text: ClassVar[bool] = True

    def take(self, index: Int[Tensor, " M"] | slice) -> Texts:
        """The texts at these positions."""
        return Texts(tuple(self.texts[i] for i in torch.arange(len(self))[index].tolist()))

    def subset(
        self, index: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice | Sequence[int]
    ) -> "TextSet":
        """The texts at these positions, in that order."""
        rows = torch.arange(len(self))[
            index if isinstance(index, slice) else torch.as_tensor(index)
        ]
        return replace(
            self,
            texts=[self.texts[i] for i in rows.tolist()],
            names=[self.names[i] for i in rows.tolist()],
            labels=None if self.labels is None else self.labels[rows],
            partners=None,
        )

    def clean(self, rows: Texts, facts: TextFacts) -> Int[Tensor, "N L"]:
        """The tokens of each text."""
        return moved(facts.tokens(rows.texts), rows.device)

    def raw(self, beside: Sequence["TextSet"] = ()) -> Float[Tensor, "N D"]:
        """How often each word is there, of unit length: words are hashed into 1,024 columns."""
        from sklearn.feature_extraction.text import HashingVectorizer  # takes a second

        vectorizer = HashingVectorizer(n_features=COLUMNS, alternate_sign=False)
        found: Any = vectorizer.transform(self.texts)
        return torch.from_numpy(found.toarray()).float()

    def has_one_scale(self, row: str) -> bool:
        """Words are counted."""
        return True

    def sheet(self, views: MultiView, facts: TextFacts, *, seed: int) -> Image.Image:
        """Some texts, one below the other; what a view hides of them is not shown."""
        pictures = self.spread(8).thumbnails(_SHOWN)
        return Image.fromarray(np.concatenate(list(pictures)))

    def copies(self) -> float:
        """The share of the texts that are equal to another one, 0..1."""
        return 1 - len(set(self.texts)) / max(1, len(self))

    def thumbnails(self, side: int) -> UInt8[np.ndarray, "N s s 3"]:
        """The beginning of each text, black on white."""
        pages = []
        for text in self.texts:
            page = Image.new("RGB", (_SHOWN, _SHOWN), "white")
            lines = "\n".join(wrap(text, 26)[:12])
            ImageDraw.Draw(page).multiline_text((4, 4), lines, fill="black", spacing=2)
            pages.append(np.asarray(page.resize((side, side), Image.Resampling.LANCZOS)))
        return np.stack(pages)
