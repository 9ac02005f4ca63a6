"""An encoder of Hugging Face's gives its own features, by its own tokens."""

import sys

import pytest
import torch

import similitude as sim
from similitude.errors import UserError
from similitude.sample import Draw
from similitude.text.hugging_face import HuggingFaceText, tokens_of_encoder
from similitude.text.networks import TextNetworkConfig
from similitude.text.text_set import Texts
from similitude.text.views import TextFacts, TextViewConfig

pytestmark = pytest.mark.slow  # the library of the encoders takes its time to come in

TEXTS = ["a red thing", "blue", "", "a picture of a blue thing"]


def test_features_are_the_mean_over_the_tokens_of_each_text_alone(encoder):
    from transformers import AutoModel, AutoTokenizer

    folder = encoder.removeprefix("hf:")
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    network = HuggingFaceText(encoder).train()
    h = network(tokens_of_encoder(TEXTS, encoder, 8))
    for text, row in zip(TEXTS, h, strict=True):
        if text:
            alone = model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(dim=1)
            torch.testing.assert_close(row[None], alone, rtol=1e-4, atol=1e-5)
        else:
            assert not row.any()


def test_a_hidden_token_is_the_mask_and_padding_stays(encoder):
    facts = TextFacts((), 6, encoder)
    view = TextViewConfig(hide=0.999).on(facts)
    rows = Texts(("a red thing",))
    (tokens,) = view.apply(rows, view.draw(Draw(0, 0, torch.arange(1), [0]), rows))
    assert tokens.tolist() == [[1, 1, 1, 0, 0, 0]]
    network = HuggingFaceText(encoder).eval()
    same = tokens_of_encoder(["[MASK] [MASK] [MASK]"], encoder, 6)
    torch.testing.assert_close(network(tokens), network(same))


def test_only_an_encoder_that_is_not_frozen_trains(encoder):
    for frozen in (False, True):
        network = TextNetworkConfig(name=encoder, frozen=frozen).build()
        assert network.num_features == 16
        assert all(p.requires_grad is not frozen for p in network.parameters())
        assert not network.train().encoder.training


def test_what_is_no_encoder_is_one_sentence(encoder, tmp_path):
    with pytest.raises(UserError, match=r"fetch it with `hf download no/such`"):
        HuggingFaceText("hf:no/such")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot open the text encoder in"):
        HuggingFaceText(f"hf:{tmp_path}")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'similitude\[transformers\]'"):
        TextNetworkConfig(name="hf:any/model").build()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_table_is_trained_on_with_it_and_scored(encoder, tmp_path, frozen):
    table = tmp_path / "texts.csv"
    rows = [
        f"a {color} thing,picture of a {color} thing {i},{color}"
        for i in range(12)
        for color in ("red", "blue")
    ]
    table.write_text("\n".join(["title,text,label", *rows]))
    name = "backbone.towers.text.network"
    settings = [f"{name}.name={encoder}", f"{name}.frozen={frozen}".lower(), "precision=float32"]
    run = sim.pretrain(
        table,
        out=tmp_path / "r",
        epochs=2,
        batch_size=8,
        overrides=[*settings, "backbone.kept=[text]"],
        report=False,
    )
    assert run.recipe.data.sensors["text"].tokenizer == encoder
    before, after = run.untrained().state_dict(), run.backbone.state_dict()
    moved = {n for n, x in before.items() if "text.encoder" in n and not torch.equal(x, after[n])}
    assert bool(moved) is not frozen
    assert run.embed(table).x.shape == (24, 16)
    found: dict = {}
    exec(run.export(tmp_path / "w.safetensors"), found)
    assert found["backbone"].num_features == 16
