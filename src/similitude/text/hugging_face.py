"""Text encoders of Hugging Face's library ``transformers``, with their tokenizers.

Letters: N texts, L tokens, D features.

Nothing is fetched and no code of a model is run: ``hf:NAME`` is a folder, or what the cache of the
library holds, in safetensors. Numbers of tokens are the tokenizer's and 2 more: 0 stays that of
padding and 1 that of a hidden token, as everywhere in texts.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from similitude.errors import UserError
from similitude.files.writing import as_path
from similitude.text.tokens import PAD, UNKNOWN_NUMBER, mean_of_tokens

PREFIX = "hf:"
_OWN = 2  # numbers that are not the tokenizer's


class HuggingFaceText(nn.Module):
    """An encoder, then the mean over the tokens that are no padding.

    It stays in evaluation mode: dropout would draw from PyTorch's global generator within a step.

    Args:
        name: ``hf:`` and a folder or a name.
        frozen: Whether its weights stay as they are.

    Raises:
        UserError: there is no such encoder, or the library is missing.
    """

    def __init__(self, name: str, *, frozen: bool = False) -> None:
        super().__init__()
        self.encoder = _loaded("AutoModel", name, use_safetensors=True)
        config = self.encoder.config
        if config.is_encoder_decoder or not isinstance(getattr(config, "hidden_size", None), int):
            raise UserError(f"{name} is no encoder of texts alone, as BERT is: choose another")
        self.num_features: int = config.hidden_size
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None  # what it gives is not used
        tokenizer = tokenizer_of(name)
        self.padding: int = tokenizer.pad_token_id
        hidden = (tokenizer.mask_token_id, tokenizer.unk_token_id, self.padding)
        self.hidden: int = next(number for number in hidden if number is not None)
        self.encoder.requires_grad_(not frozen).float()

    def train(self, mode: bool = True) -> "HuggingFaceText":
        """Set training mode, which the encoder does not know."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, tokens: Int[Tensor, "N L"]) -> Float[Tensor, "N D"]:
        """Features of texts; zeros of empty ones."""
        there = tokens != PAD
        numbers = (tokens - _OWN).masked_fill(tokens == UNKNOWN_NUMBER, self.hidden)
        seen = there.clone()
        seen[:, 0] = True  # attention over nothing is not a number
        found = self.encoder(
            input_ids=numbers.masked_fill(~there, self.padding), attention_mask=seen.long()
        )
        return mean_of_tokens(found.last_hidden_state, tokens)


def tokens_of_encoder(texts: Sequence[str], name: str, length: int) -> Int[Tensor, "N L"]:
    """The tokens of each text, cut after ``length``, with 0 behind shorter ones.

    Args:
        texts: N of them.
        name: Of the encoder.
        length: L.
    """
    out = torch.full((len(texts), length), PAD)
    given = [text for text in texts if text]
    if given:
        found = iter(tokenizer_of(name)(given, truncation=True, max_length=length)["input_ids"])
        for row, text in zip(out, texts, strict=True):
            if text:  # an empty one has no tokens, not even those of beginning and end
                ids = next(found)
                row[: len(ids)] = torch.tensor(ids, dtype=torch.int64) + _OWN
    return out


def from_anywhere(name: str) -> str:
    """The name with the whole path of its folder, where it is one."""
    folder = as_path(name.removeprefix(PREFIX))
    return f"{PREFIX}{folder.resolve()}" if folder.is_dir() else name


@lru_cache(maxsize=4)
def tokenizer_of(name: str) -> Any:
    """The tokenizer of an encoder.

    Raises:
        UserError: there is none, or none that pads.
    """
    tokenizer = _loaded("AutoTokenizer", name)
    if tokenizer.pad_token_id is None:
        raise UserError(f"the tokenizer of {name} has no token for padding: choose another encoder")
    return tokenizer


def _loaded(kind: str, name: str, **options: Any) -> Any:
    own = name.removeprefix(PREFIX)
    try:
        library = importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            f"{name} needs transformers: pip install 'similitude[transformers]'"
        ) from error
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    load: Callable[..., Any] = getattr(library, kind).from_pretrained
    folder = as_path(own)
    try:
        return load(str(folder) if folder.is_dir() else own, local_files_only=True, **options)
    except Exception as error:  # of a damaged folder the library raises nearly anything
        if folder.is_dir():
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot open the text encoder in {folder}: {first}") from error
        raise UserError(
            f"there is no folder {own}, and no model of this name in Hugging Face's cache: "
            f"fetch it with `hf download {own}`"
        ) from error
