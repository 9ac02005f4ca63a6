"""Texts to tokens, with the library ``tokenizers`` (WordPiece, Schuster and Nakajima 2012).

Letters: N texts, L tokens of a text, D features, K entries of a vocabulary.
"""

import importlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from similitude.errors import UserError

PADDING, UNKNOWN = "[PAD]", "[UNK]"  # the first entries of every vocabulary
PAD, UNKNOWN_NUMBER = 0, 1  # their numbers


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise UserError("texts need tokenizers: pip install 'similitude[text]'") from error


def learn_vocabulary(texts: Iterable[str], size: int) -> tuple[str, ...]:
    """The commonest words of some texts, and all letters, of which other words are made.

    The trainers of the library give other pieces each time they run; this gives the same.

    Args:
        texts: Letters are made small, and lose their accents.
        size: Entries at most, those for padding and for what is unknown among them.
    """
    splitter = _split(_library().Tokenizer(_library().models.WordPiece(unk_token=UNKNOWN)))
    words: Counter[str] = Counter()
    for text in texts:
        small = splitter.normalizer.normalize_str(text)
        words.update(word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(small))
    letters = sorted({letter for word in words for letter in word})
    pieces = [PADDING, UNKNOWN, *letters, *(f"##{letter}" for letter in letters)]
    by_count = sorted((word for word in words if len(word) > 1), key=lambda w: (-words[w], w))
    return tuple([*pieces, *by_count][:size])


def tokens_of(texts: Sequence[str], vocabulary: tuple[str, ...], length: int) -> Int[Tensor, "N L"]:
    """The tokens of each text, cut after ``length``, with 0 behind shorter ones.

    Args:
        texts: N of them.
        vocabulary: Piece of each number, 0 and 1 those for padding and for what is unknown.
        length: L.
    """
    out = torch.full((len(texts), length), PAD)
    for row, found in zip(out, _tokenizer(vocabulary).encode_batch(list(texts)), strict=True):
        ids = found.ids[:length]
        row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return out


def mean_of_tokens(x: Float[Tensor, "N L D"], tokens: Int[Tensor, "N L"]) -> Float[Tensor, "N D"]:
    """The mean over the tokens that are no padding; zeros where there is none."""
    there = (tokens != PAD).unsqueeze(2).to(x.dtype)
    return (x * there).sum(dim=1) / there.sum(dim=1).clamp_min(1)


@lru_cache(maxsize=4)
def _tokenizer(vocabulary: tuple[str, ...]) -> Any:
    lib = _library()
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    return _split(lib.Tokenizer(lib.models.WordPiece(numbers, unk_token=UNKNOWN)))


def _split(tokenizer: Any) -> Any:
    """Small letters without accents, cut at blanks and punctuation, as BERT's."""
    lib = _library()
    tokenizer.normalizer = lib.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = lib.pre_tokenizers.BertPreTokenizer()
    return tokenizer
