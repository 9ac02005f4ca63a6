"""Runs on images that are not red, green and blue of 8 bits, and what is made of them."""

import numpy as np
import pytest
import torch

import similitude as sim
from builders import Ears
from similitude.errors import UserError
from similitude.images.views import image_views
from similitude.recipes import load_recipe

pytestmark = pytest.mark.usefixtures("unchecked_runs", "forked_exports")

SMALL = ("image_size=16", "canvas_size=16", "backbone.base_width=4", "method.view.size=null")
METHODS = ("simclr", "barlow_twins", "dino", "moco_v2")


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Two classes of four channels, 12 bits of 16: in one the last two differ."""
    folder = tmp_path_factory.mktemp("fields")
    random = np.random.default_rng(0)
    for name in ("same", "other"):
        (folder / name).mkdir()
        for i in range(12):
            field = random.integers(0, 4096, (16, 16, 4)).astype(np.uint16)
            if name == "same":
                field[..., 3] = field[..., 2]
            np.save(folder / name / f"{i}.npy", field)
    return folder


def train(data, out, method="simclr", **options):
    overrides = tuple(s for s in SMALL if method == "simclr" or not s.startswith("method."))
    given = {"channels": 4, "depth": 16, "epochs": 1, "batch_size": 12, "overrides": overrides}
    return sim.pretrain(data, method=method, out=out, **{"report": False, **given, **options})


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("channels", "depth"), [(4, 8), (4, 16), (1, 16)])
def test_methods_train_on_channels_and_depth(tmp_path, method, channels, depth):
    array = np.random.default_rng(0).integers(0, 65536, (24, 16, 16, channels)).astype(np.uint16)
    ears = Ears()

    run = train(array, tmp_path / "run", method, channels=channels, depth=depth, listener=ears)

    assert run.checkpoint.step == 2
    recipe = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (recipe.data.channels, recipe.data.depth) == (channels, depth)
    assert len(recipe.data.mean) == len(recipe.data.std) == recipe.backbone.channels == channels
    assert not any(v.of_colors for v in image_views(recipe.method.view_configs).values())
    assert any(f"three channels, and there are {channels}" in s for s in ears.sentences)
    assert run.embed(array).x.isfinite().all()


@pytest.mark.slow
def test_a_run_of_sixteen_bits_tells_apart_what_eight_bits_do_not(tmp_path):
    """Two pictures that differ by one of 65,536 steps in one channel."""
    random = np.random.default_rng(0)
    array = random.integers(0, 65536, (24, 16, 16, 4)).astype(np.uint16)
    pair = np.full((2, 16, 16, 4), 1000, np.uint16)
    pair[1, ..., 3] += 60
    for depth in (8, 16):
        run = train(array, tmp_path / f"of{depth}", depth=depth)
        a, b = run.embed(pair).x
        assert torch.equal(a, b) == (depth == 8)


@pytest.mark.slow
def test_a_run_of_four_channels_is_scored_shown_exported_and_gone_on_with(tmp_path, fields):
    run = train(fields, tmp_path / "run", report=True)
    table = run.evaluate(fields, protocols=["knn", "linear"], against=[tmp_path / "run"])
    assert {"raw pixels", "random backbone"} <= set(table.rows)
    assert (tmp_path / "run" / "report.html").exists()
    assert run.feature_maps(("out",)).channels
    tuned = sim.finetune(tmp_path / "run", fields, epochs=1, out=tmp_path / "tuned")
    assert tuned.recipe.data.channels == 4
    again = sim.pretrain(fields, out=tmp_path / "run", resume=True)
    assert again.checkpoint.step == 2


@pytest.fixture(scope="module")
def deep(tmp_path_factory, fields):
    """A run that every format takes."""
    settings = ("image_size=16", "canvas_size=18", "backbone.stem=standard")
    out = tmp_path_factory.mktemp("runs") / "deep"
    return train(fields, out, backbone="resnet18", overrides=settings)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["timm", "torchvision", "huggingface", "onnx", "torch-export"])
def test_exports_take_four_channels_of_sixteen_bits(tmp_path, deep, fields, to):
    pytest.importorskip({"huggingface": "transformers", "onnx": "onnxruntime"}.get(to, "timm"))
    snippet = deep.export(tmp_path / to, to=to, images=fields)
    assert "compared on 8 .npy files" in snippet


@pytest.mark.slow
def test_pictures_that_a_run_keeps_do_not_stand_for_its_images(tmp_path, deep):
    with pytest.raises(UserError, match="--images"):
        deep.export(tmp_path / "none", to="timm")


@pytest.mark.slow
def test_published_weights_are_widened_for_a_run_and_for_its_scores(tmp_path, fields):
    rgb = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3)).astype(np.uint8)
    train(rgb, tmp_path / "rgb", channels=None, depth=None)
    ears = Ears()

    run = train(fields, tmp_path / "run", init=tmp_path / "rgb", overrides=(), listener=ears)

    assert any("takes images of 4 channels now" in s for s in ears.sentences)
    assert run.start["conv1.weight"].shape[1] == 4
    told = Ears()
    table = run.evaluate(fields, protocols=["knn"], against=[tmp_path / "rgb"], listener=told)
    assert any("rgb: The first layer takes" in s for s in told.sentences)
    assert {"rgb", "before training"} <= set(table.rows)
    few = {"channels": None, "depth": None, "overrides": ()}
    with pytest.raises(UserError, match="4 channels, and these have 3"):
        train(rgb, tmp_path / "no", init=tmp_path / "run", **few)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "cmc"}, "splits images into colors.*4 channels"),
        ({"channels": 3}, "has 4 channels, not 3: channels=4 keeps them"),
        ({"depth": 12}, "depth"),
        ({"overrides": ("mean=[0.5, 0.5]",)}, "one number for each of 4 channels"),
        ({"overrides": ("backbone.options={in_chans: 4}",)}, "--channels"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(tmp_path, fields, options, message):
    with pytest.raises(UserError, match=message):
        train(fields, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_loaded_images_with_channels_of_their_own_are_not_cut(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 4)).astype(np.uint8)
    images = sim.data.load_images(sim.data.open_source(array, channels=4))
    with pytest.raises(UserError, match=r"4 channels.*channels=4"):
        train(images, tmp_path / "run", channels=None, depth=None)
