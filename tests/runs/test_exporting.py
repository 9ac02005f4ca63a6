"""An export is used by a process without similitude, and gives the run's features."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
import yaml
from PIL import Image
from torch import nn

import similitude as sim
from builders import write_photos
from similitude.errors import UserError
from similitude.images.exports import EXPORTS
from similitude.runs import exporting

pytestmark = pytest.mark.usefixtures("unchecked_runs")

FAST = ["precision=float32", "memory_format=contiguous"]
PLAIN = ["image_size=32", "backbone.base_width=null", "backbone.stem=standard"]
NETWORKS = {
    "narrow": [*PLAIN, "backbone.base_width=4"],
    "resnet": PLAIN,
    "small": [*PLAIN, "backbone.base_width=4", "backbone.stem=small"],
    "vit": [
        *PLAIN,
        "backbone.name=vit_tiny_patch16_224",
        "backbone.options={img_size: 32, patch_size: 8, depth: 2}",
    ],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 24, size=40)


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory):
    """A run of every network, trained when it is asked for."""
    made = {}

    def run(name):
        if name not in made:
            made[name] = sim.pretrain(
                photos, method="simsiam", epochs=1, batch_size=12, report=False,
                out=tmp_path_factory.mktemp("runs") / name,
                overrides=[*FAST, *NETWORKS[name]],
            )  # fmt: skip
        return made[name]

    return run


def needed(to):
    missing = [package for package in EXPORTS[to].needs if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.mark.slow
@pytest.mark.usefixtures("forked_exports")
@pytest.mark.parametrize(
    ("to", "network"),
    [
        ("timm", "resnet"),
        ("timm", "vit"),
        ("torchvision", "resnet"),
        ("huggingface", "narrow"),
        ("huggingface", "vit"),
        ("onnx", "small"),
        ("onnx", "vit"),
        ("torch-export", "small"),
        ("torch-export", "vit"),
    ],
)
def test_the_printed_python_gives_the_vectors_of_embed(
    to, network, runs, photos, tmp_path, monkeypatch
):
    needed(to)
    run, out, jpegs = runs(network), tmp_path / "exported", tmp_path / "jpegs"
    code = run.export(out, to=to)
    assert float(code.split("same input: ")[1].split(",")[0]) <= 1e-4
    jpegs.mkdir()
    for number, file in enumerate(sorted(photos.rglob("*.png"))[:5]):
        Image.open(file).save(jpegs / f"{number}.jpg")
    ours = run.embed(jpegs).x
    monkeypatch.setitem(sys.modules, "similitude", None)  # whatever imports it fails
    names: dict = {}
    exec(code, names)
    found = names["features"](names["prepare"](sorted(jpegs.iterdir())))
    theirs = torch.as_tensor(found)
    exact = to in ("torchvision", "onnx", "torch-export")  # the others resize once
    least = nn.functional.cosine_similarity(theirs, ours).min()
    assert least > (0.9995 if exact else 0.98)
    assert "README.md" in {path.name for path in out.iterdir()}


@pytest.mark.slow
@pytest.mark.usefixtures("forked_exports")
@pytest.mark.parametrize("to", ["onnx", "torch-export", "safetensors"])
def test_a_classifier_goes_with_its_classes_where_the_format_holds_them(
    to, runs, photos, tmp_path, monkeypatch
):
    options = {"out": tmp_path / "c", "epochs": 2, "batch_size": 8}
    tuned = sim.finetune(runs("small").path, photos, **options)
    monkeypatch.chdir(tmp_path)
    if to == "safetensors":
        assert "sim.load(RUN).predict(DATA)" in tuned.export("b.safetensors", images=photos)
        return
    needed(to)
    code = tuned.export("exported", to=to, images=photos)
    monkeypatch.setitem(sys.modules, "similitude", None)
    names: dict = {}
    exec(code, names)
    files = sorted(photos.rglob("*.png"))
    logits = torch.as_tensor(names["logits"](names["prepare"](files)))
    monkeypatch.undo()
    known = tuned.predict(photos)
    rows = [known.names.index(file.relative_to(photos).as_posix()) for file in files]
    torch.testing.assert_close(logits.softmax(1), known.probabilities[rows], atol=1e-3, rtol=0)
    assert tuple(names["CLASSES"]) == tuned.class_names


@pytest.mark.slow
@pytest.mark.parametrize("network", ["small", "narrow", "vit"])
def test_weights_are_loaded_and_compared_too(network, runs, photos, tmp_path, monkeypatch):
    if network == "small":  # by a new interpreter, as a user's are
        monkeypatch.setattr(exporting, "subprocess", subprocess)
    weights = tmp_path / "w.safetensors"
    told = runs(network).export(weights, images=photos)
    assert "compared on 8 JPEG files" in told
    assert float(told.split("same input: ")[1].split(",")[0]) <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_exports")
def test_the_card_says_data_recipe_scores_and_license_and_no_path(runs, photos, tmp_path):
    run = runs("resnet")
    run.evaluate(photos, protocols="knn")
    run.export(tmp_path / "exported", to="torchvision", images=photos)
    card = (tmp_path / "exported" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "torchvision"
    assert "license" not in head  # it is of whoever trained it
    assert "It began with random weights" in card
    assert f"24 images of `{photos.name}`" in card
    assert "| pretrained backbone |" in card
    assert "Lowest cosine with `embed`" in card
    assert "name: simsiam" in card
    assert str(photos) not in card


@pytest.mark.slow
@pytest.mark.usefixtures("forked_exports")
def test_other_features_are_not_written(runs, tmp_path, monkeypatch):
    class Wrong(type(EXPORTS["timm"])):
        def reference(self, model):
            return nn.Sequential(model.backbone, nn.Threshold(0.5, 0))

    monkeypatch.setitem(EXPORTS, "timm", Wrong())
    with pytest.raises(UserError, match="gives other features than the run"):
        runs("resnet").export(tmp_path / "exported", to="timm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_mistakes_are_one_sentence_each(runs, tmp_path, monkeypatch):
    run = runs("small")
    with pytest.raises(UserError, match="did you mean onnx"):
        run.export(tmp_path / "x", to="onx")
    with pytest.raises(UserError, match="onnx, torch-export and safetensors take every"):
        run.export(tmp_path / "x", to="timm")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and .*similitude\[onnx\]"):
        run.export(tmp_path / "x", to="onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        run.export(tmp_path / "full", to="torch-export")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
