"""A table of several sensors is pretrained, scored, embedded and resumed as photos are."""

import pytest
import torch
from safetensors.torch import load_file

import similitude as sim
from similitude.errors import UserError
from similitude.modalities import modality_of

QUICK = ["backbone.towers.text.network.width=32", "backbone.towers.photo.network.base_width=4"]
QUICK += ["backbone.towers.depth.network.base_width=4", "precision=float32"]


def pretrained(data, out, method="clip", epochs=2, **more):
    options = {"overrides": QUICK, "batch_size": 16, "report": False}
    return sim.pretrain(data, method=method, out=out, epochs=epochs, **{**options, **more})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["clip", "cmc", "simclr", "byol"])
def test_a_method_trains_on_a_table_and_again_with_the_same_bits(pairs, tmp_path, method):
    run = pretrained(pairs, tmp_path / "r", method)
    again = pretrained(pairs, tmp_path / "s", method)
    mine, other = run.checkpoint.method, again.checkpoint.method
    assert all(torch.equal(other[name], value) for name, value in mine.items())
    assert run.recipe.backbone.kept == ("photo",)
    assert run.recipe.data.sensors["text"].vocabulary[:2] == ("[PAD]", "[UNK]")
    assert "red" in run.recipe.data.sensors["text"].vocabulary


@pytest.mark.slow
def test_it_is_scored_beside_every_sensors_raw_numbers(pairs, tmp_path):
    run = pretrained(pairs, tmp_path / "r", report=True, epochs=20)
    table = run.evaluate(pairs, protocols=["knn"])
    assert list(table.rows) == [
        *("raw pixels of photo", "raw pixels of depth", "bag of words of text"),
        *("random backbone", "pretrained backbone"),
    ]
    assert table.rows["pretrained backbone"]["knn"].mean > 0.7  # chance is a quarter
    assert "raw pixels of depth" in run.report().read_text()


@pytest.mark.slow
def test_photos_alone_are_embedded_by_the_network_that_is_kept(pairs, tmp_path):
    run = pretrained(pairs, tmp_path / "r")
    of_table = run.embed(pairs)
    of_photos = run.embed(pairs.parent)
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(f"{i:02d}.png,{i % 4}" for i in range(40)))
    tuned = sim.finetune(run.path, pairs.parent, labels=labels, out=tmp_path / "f", epochs=1)
    assert tuned.test_accuracy is not None
    row = of_photos.names.index("01.png")
    torch.testing.assert_close(of_photos.x[row], of_table.x[1], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [["photo"], ["text"], ["photo", "text"]])
def test_the_network_of_the_sensor_that_is_kept_is_exported_alone(pairs, tmp_path, kept):
    """What is printed runs, and a photo gets the features that embed gives it."""
    settings = [*QUICK, f"backbone.kept={kept}"]
    run = pretrained(pairs, tmp_path / "r", overrides=settings, epochs=1)
    snippet = run.export(tmp_path / "kept.safetensors")
    found: dict = {}
    exec(snippet, found)  # as a user does
    if kept == ["photo"]:
        assert "import similitude" not in snippet
        assert "from similitude" not in snippet
        mine = found["backbone"](found["prepare"](pairs.parent / "01.png"))[0].detach()
        torch.testing.assert_close(mine, run.embed(pairs).x[1], rtol=1e-5, atol=1e-5)
        again = sim.pretrain(
            pairs.parent, init=run.path, out=tmp_path / "s", epochs=1, batch_size=16, report=False
        )
        assert again.start.keys() == load_file(tmp_path / "kept.safetensors").keys()
    else:
        network = run.backbone.inner.networks["text"] if kept == ["text"] else run.backbone
        theirs = found["backbone"].state_dict()
        assert theirs.keys() == network.state_dict().keys()
        assert all(torch.equal(theirs[name], x) for name, x in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["clip", "elo"])
def test_micro_batches_change_nothing(pairs, tmp_path, method):
    """Of texts alone: BatchNorm sees micro-batches."""
    texts = tmp_path / "texts.csv"
    lines = pairs.read_text().splitlines()[1:]
    rows = [f"{name.split(',')[3]} {i},a {name.split(',')[3]} one" for i, name in enumerate(lines)]
    texts.write_text("\n".join(["title,text", *rows]))
    options = {"overrides": ["precision=float32"], "epochs": 1}
    whole = pretrained(texts, tmp_path / "r", method, **options)
    parts = pretrained(texts, tmp_path / "s", method, micro_batch_size=4, **options)
    for name, value in whole.checkpoint.method.items():
        torch.testing.assert_close(parts.checkpoint.method[name], value, rtol=1e-4, atol=1e-5)


def test_a_table_is_claimed_and_a_folder_is_not(pairs):
    assert modality_of(pairs).kind == "sensors"
    assert modality_of(pairs.parent).kind == "image"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("backbone.towers.text.network.name=bert", "unknown network for texts 'bert'"),
        ("backbone.kept=[texts]", "no sensor 'texts': there are photo, depth, text"),
        ("backbone.towers.txt.network.name=bag", "did you mean text"),
    ],
)
def test_a_setting_of_a_sensor_that_cannot_be_is_one_sentence(pairs, tmp_path, setting, words):
    with pytest.raises(UserError, match=words):
        pretrained(pairs, tmp_path / "r", overrides=[setting])


def test_what_a_table_lacks_is_one_sentence(tmp_path):
    def table(text, name="t.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    for text, words in (
        ("", "has no rows"),
        ("photo,text\n", "has no rows"),
        ("photo,text\na.png\n", "row 2 of .* has 1 cells, and the header has 2"),
        ("number,size\n1,2\n", "has no column of files or texts"),
        ("photo,split\na.png,train\n", "none of the 1 files in column photo of .* is there"),
        ("text,Text\na,b\n", "two columns of .* have one name"),
        ("name,text\na,x\na,y\n", "has the name 'a' more than once"),
        ("type,text\na,b\n", "the column 'type' of .*: rename it"),
        ("photo.path,text\na,b\n", r"the column 'photo\.path' of .*: rename it"),
        ("text\none\ntwo\n", "clip compares sensors"),
    ):
        with pytest.raises(UserError, match=words):
            sim.pretrain(table(text), out=tmp_path / "r", batch_size=2, epochs=1)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
def test_photos_are_found_by_words_and_classes_by_their_description(pairs, tmp_path):
    run = pretrained(pairs, tmp_path / "r", epochs=40)
    table = run.retrieve(pairs, prompts=["a picture of a {} thing"])
    assert {(row.asked, row.found) for row in table.rows} >= {("photo", "text"), ("text", "photo")}
    ranks = {row.row: row.median_rank for row in table.rows if row.asked == "text"}
    assert ranks["pretrained backbone"] < ranks["random backbone"]
    assert table.zero_shot["pretrained backbone"] > 0.9
    page = run.report().read_text()
    assert "photo by text, of 16" in page
    assert '<q class="words">a picture of a red thing, number' in page
    with pytest.raises(UserError, match="in the place of the class"):
        run.retrieve(pairs, prompts=["a thing"])
    other = pretrained(pairs, tmp_path / "s", "simclr", epochs=1)
    with pytest.raises(UserError, match="simclr brings no sensors into one space"):
        other.retrieve(pairs)
