"""What is kept of a run is the network its method names, everywhere: DINO's is the target."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from builders import IMAGE_METHODS, random_images, small_config, small_recipe
from similitude.images.backbones import BackboneConfig
from similitude.listener import Silent
from similitude.report import write_report
from similitude.runs.metrics import read_metrics
from similitude.training.pretrain import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

CPU = torch.device("cpu")
VIT = BackboneConfig(
    name="vit_tiny_patch16_224",
    options={
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "dynamic_img_size": True,
        "drop_path_rate": 0.2,
    },
)


def run_of(folder, name="dino", *, backbone=VIT, **changes):
    recipe = small_recipe(
        name, method=small_config(name, **changes), backbone=backbone, precision="float32"
    )
    run = train(random_images(64), "x", recipe, folder, device=CPU, listener=Silent())
    assert run is not None
    return run


def weights(run, name):
    state, prefix = run.checkpoint.method, f"{name}."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.parametrize(
    ("evaluate", "kept", "other"),
    [("target", "target_backbone", "backbone"), ("online", "backbone", "target_backbone")],
)
def test_loading_and_exporting_give_the_network_that_is_kept(tmp_path, evaluate, kept, other):
    run = run_of(tmp_path / "run", evaluate=evaluate)
    exported = load_file(run.path / "backbone.safetensors")
    loaded = run.backbone.state_dict()
    assert exported.keys() == loaded.keys() == weights(run, kept).keys()
    for name, weight in weights(run, kept).items():
        assert torch.equal(exported[name], weight)
        assert torch.equal(loaded[name], weight)
    assert any(not torch.equal(loaded[k], v) for k, v in weights(run, other).items())


def test_the_features_that_are_measured_are_those_of_the_kept_network(tmp_path):
    """A target that never moves measures as the random backbone does, to the last digit."""
    run = run_of(tmp_path / "run", ema_decay=1.0)
    rows = [row for row in read_metrics(run.path / "metrics.csv") if "feature_std" in row]
    assert len(rows) > 1
    for name in ("feature_std", "effective_rank", "uniformity", "knn"):
        assert len({row[name] for row in rows}) == 1
    moving = run_of(tmp_path / "moving", ema_decay=0.0, ema_schedule="constant")
    rows = [row for row in read_metrics(moving.path / "metrics.csv") if "feature_std" in row]
    assert len({row["feature_std"] for row in rows}) > 1


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_methods_keep_their_backbone_unless_they_say_otherwise(name):
    kept = small_config(name).kept
    assert kept == ("target_backbone" if name == "dino" else "backbone")


def test_a_vit_leaves_attention_maps_that_the_report_shows(tmp_path):
    run = run_of(tmp_path / "run")
    with np.load(run.path / "attention.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert arrays["maps"].shape == (8, 3, 4, 4)
    assert arrays["images"].shape == (8, 16, 16, 3)
    assert len(set(arrays["names"])) == 8
    assert set(arrays["classes"]) <= {f"color {i}" for i in range(4)}
    pixels = random_images(64)
    first = pixels.names.index(str(arrays["names"][0]))
    assert np.array_equal(arrays["images"][0], pixels.pixels[first].permute(1, 2, 0).numpy())
    assert 'id="attention"' in write_report([run.path]).read_text(encoding="utf-8")


def test_other_backbones_leave_no_attention(tmp_path):
    run = run_of(tmp_path / "run", "swav", backbone=small_recipe("simclr").backbone)
    assert not (run.path / "attention.npz").exists()
