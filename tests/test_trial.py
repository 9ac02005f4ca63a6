"""Trials of speed are made once on a machine, and a run compiles only where that pays."""

import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from builders import BACKBONE, TinyBackbone, small_recipe
from similitude import api, trial
from similitude.acceleration import Arithmetic
from similitude.backbones import BackboneConfig
from similitude.data import open_source
from similitude.data.loader import CanvasBatch
from similitude.listening import Silent
from similitude.methods import build_method
from similitude.pretraining import Pretraining
from similitude.recipes import arithmetic_of, automatic
from similitude.recipes.automatic import Facts, choose_arithmetic, choose_compiling, may_compile
from similitude.trial import Compiling, Speeds, arithmetic_speeds, compiling

CPU = torch.device("cpu")
LONG = small_recipe("simclr", epochs=10_000, compile="auto")
FACTS = Facts(1_000, [16], CPU)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "similitude" / "trials.json"


@pytest.fixture
def timed(monkeypatch):
    """The batches timed; each takes a second more than the one before."""
    batches = []

    def seconds(forward, images):
        batches.append(tuple(images.shape))
        return float(len(batches))

    monkeypatch.setattr(trial, "_seconds", seconds)
    return batches


def test_a_trial_is_made_once(place, timed):
    first = arithmetic_speeds(BACKBONE, 16, CPU, 32)
    assert timed == 9 * [(32, 3, 16, 16)]
    # the best of three rounds: 1, 4 and 7 seconds
    assert first.images == {
        "float32": 32.0,
        "float32 channels_last": 8.0,
        "bfloat16 channels_last": 32 / 7,
    }
    assert first.fastest() == "float32"
    assert first.reason.startswith("fastest in a short trial here (images/s: float32 32, ")
    again = arithmetic_speeds(BACKBONE, 16, CPU, 32)
    assert len(timed) == 9
    assert again.images == first.images
    assert f"on {date.today().isoformat()}, kept in {place} (images/s: float32 32" in again.reason


VIT = BackboneConfig(
    name="vit_tiny_patch16_224",
    options={"img_size": 16, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
)


def test_plain_attention_is_tried_where_there_is_attention(place, timed):
    assert "bfloat16 with plain attention" not in arithmetic_speeds(BACKBONE, 16, CPU, 32).images
    assert "bfloat16 with plain attention" in arithmetic_speeds(VIT, 16, CPU, 32).images


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({}, ("bfloat16", "channels_last", "plain")),
        ({"attention": "fused"}, ("float32", "channels_last", "fused")),
        ({"precision": "bfloat16", "attention": "fused"}, ("bfloat16", "channels_last", "fused")),
        ({"memory_format": "contiguous"}, ("float32", "contiguous", "fused")),
        # not among the candidates: what is open follows the fastest of all
        (
            {"precision": "bfloat16", "memory_format": "contiguous"},
            ("bfloat16", "contiguous", "plain"),
        ),
    ],
)
def test_the_fastest_that_agrees_with_the_recipe(given, chosen, monkeypatch):
    speeds = Speeds(dict(zip(trial.CANDIDATES, (10.0, 30.0, 20.0, 40.0), strict=True)))
    monkeypatch.setattr(automatic, "arithmetic_speeds", lambda *_: speeds)
    recipe, speed = choose_arithmetic(small_recipe("simclr", backbone=VIT, **given), FACTS)
    assert (recipe.precision, recipe.memory_format, recipe.attention) == chosen
    assert set(recipe.reasons) == {"precision", "memory_format", "attention"} - set(given)
    if "precision" not in given or "memory_format" not in given:
        assert speeds.images[speeds.fastest()] >= speed
        assert trial.CANDIDATES[next(n for n, s in speeds.images.items() if s == speed)] == (
            arithmetic_of(recipe)
        )


@pytest.mark.parametrize("change", ["backbone", "size", "batch", "threads"])
def test_another_trial_for_other_work(place, timed, change, monkeypatch):
    arithmetic_speeds(BACKBONE, 16, CPU, 32)
    if change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    wider = BACKBONE.model_copy(update={"base_width": 8})
    arithmetic_speeds(
        wider if change == "backbone" else BACKBONE,
        20 if change == "size" else 16,
        CPU,
        batch_size=8 if change == "batch" else 32,
    )
    assert len(timed) == 18
    assert len(json.loads(place.read_text())) == 2


@pytest.mark.parametrize(
    ("wanted", "size", "taken"), [(32, 16, 32), (4096, 16, 512), (256, 64, 32), (256, 300, 8)]
)
def test_a_step_is_like_those_of_the_run_but_bounded(place, timed, wanted, size, taken):
    arithmetic_speeds(BACKBONE, size, CPU, wanted)
    assert {shape[0] for shape in timed} == {taken}


@pytest.mark.parametrize("content", ["nonsense", "[]", '{"a": {}}', "no images", None])
def test_a_trial_is_made_again_where_it_is_old_or_unreadable(place, timed, content):
    arithmetic_speeds(BACKBONE, 16, CPU, 32)
    (key, found), *_ = json.loads(place.read_text()).items()
    if content is None:
        found["day"] = (date.today() - timedelta(days=31)).isoformat()
        content = json.dumps({key: found})
    if content == "no images":
        content = json.dumps({key: found | {"images": None}})
    place.write_text(content)
    arithmetic_speeds(BACKBONE, 16, CPU, 32)
    assert len(timed) == 18


def test_a_cache_that_cannot_be_written_costs_only_the_trial(place, timed):
    place.parent.write_text("a file where the folder should be")
    assert arithmetic_speeds(BACKBONE, 16, CPU, 32).fastest() == "float32"


def test_no_home(timed, monkeypatch):
    def home():
        raise RuntimeError("no home directory")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert "in a short trial here (" in arithmetic_speeds(BACKBONE, 16, CPU, 32).reason


def test_a_place_at_home_is_told_without_the_name_of_the_user(timed, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    arithmetic_speeds(BACKBONE, 16, CPU, 32)
    reason = arithmetic_speeds(BACKBONE, 16, CPU, 32).reason
    assert "kept in ~/.cache/similitude/trials.json (" in reason


def test_a_trial_tells_of_itself(place, timed):
    heard = []

    class Listening(Silent):
        def progress(self, what, done, total, note=""):
            heard.append((what, done, total, note))

    arithmetic_speeds(BACKBONE, 16, CPU, 32, Listening())
    assert heard[0] == ("timing kinds of arithmetic", 0, 4, "float32")
    compiling(BACKBONE, Arithmetic(), 16, CPU, 32, Listening())
    assert heard[-1][0] == "trying torch.compile"
    told = len(heard)
    arithmetic_speeds(BACKBONE, 16, CPU, 32, Listening())
    assert len(heard) == told


def test_what_compiling_costs_and_brings(place, timed):
    found = compiling(BACKBONE, Arithmetic(), 16, CPU, 32)
    # plain calls take 1, 2, 3, 4 seconds, compiled ones 5, 6, 7, 8: the first call is left out
    assert found == Compiling(plain=32 / 2, compiled=32 / 6, seconds=0.0)
    assert compiling(BACKBONE, Arithmetic(), 16, CPU, 32) == found
    assert len(timed) == 8


def test_a_machine_that_cannot_compile(place, monkeypatch):
    def compiled(forward, dynamic):
        def run(x):
            raise TorchDynamoException("no C++ compiler\nand a long story")

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    recipe = choose_compiling(LONG, FACTS, 1000.0)
    assert recipe.compile is False
    assert recipe.reasons["compile"] == (
        "torch.compile cannot compile the backbone here (no C++ compiler): "
        "train with --set compile=false"
    )
    assert not place.exists()  # somebody may install one


@pytest.mark.parametrize(
    ("found", "pays"),
    [
        (Compiling(plain=1000, compiled=1200, seconds=50), True),
        (Compiling(plain=1000, compiled=990, seconds=1), False),
        # 10,000 epochs of 2,200 images at 1,000 a second, a hundredth of them saved
        (Compiling(plain=1000, compiled=1000 / 0.99, seconds=230), False),
        (Compiling(plain=1000, compiled=1000 / 0.99, seconds=210), True),
    ],
)
def test_compiled_where_it_saves_more_than_it_costs(found, pays, monkeypatch):
    monkeypatch.setattr(automatic, "compiling", lambda *_: found)
    recipe = choose_compiling(LONG, FACTS, 1000.0)
    assert recipe.compile is pays
    assert recipe.reasons["compile"].startswith(f"{found.compiled:.0f} images/s in a trial here")


def test_tried_in_long_runs_alone():
    assert may_compile(LONG, FACTS, 1000.0)
    assert not may_compile(LONG.model_copy(update={"epochs": 100}), FACTS, 1000.0)
    for given in (True, False):
        assert not may_compile(LONG.model_copy(update={"compile": given}), FACTS, 1000.0)


def test_a_finished_recipe_leaves_nothing_open(monkeypatch, timed):
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    source = open_source(images.permute(0, 2, 3, 1).numpy())
    for backbone in (BACKBONE, VIT):
        base = small_recipe("simclr", backbone=backbone)
        recipe = api.choose(source, 64, recipe=base)
        how = [recipe.precision, recipe.memory_format, recipe.attention, recipe.compile]
        assert "auto" not in how
        with monkeypatch.context() as patch:
            patch.setattr(automatic, "arithmetic_speeds", None)  # would fail if it were asked
            assert api.choose(source, 64, recipe=recipe) == recipe


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("micro_batch_size", [None, 8])
def test_a_compiled_step_computes_the_same(micro_batch_size):
    losses, weights = [], []
    for compiled in (False, True):
        torch.manual_seed(0)
        recipe = small_recipe(
            "byol",
            compile=compiled,
            precision="float32",
            memory_format="contiguous",
            micro_batch_size=micro_batch_size,
        )
        method = build_method(recipe.method, TinyBackbone())
        module = Pretraining(method, recipe, steps_per_epoch=1)
        canvases = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)
        batch = CanvasBatch(canvases, torch.arange(16), torch.ones(16), 0)
        losses.append(module.optimize(batch, module.optimizer)["loss"].item())
        weights.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-5)
