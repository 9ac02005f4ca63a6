"""An encoder of Hugging Face's of a few numbers, in a folder."""

import pytest


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> str:
    """Its name, ``hf:`` and the folder; skips where the library is missing."""
    library = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder = tmp_path_factory.mktemp("encoder")
    words = ["a", "[MASK]", "[PAD]", "red", "blue", "thing", "[UNK]", "picture", "of"]
    numbers = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = library.BertConfig(vocab_size=9, intermediate_size=32, pad_token_id=2, **sizes)
    library.BertModel(config).save_pretrained(folder)
    return f"hf:{folder}"
