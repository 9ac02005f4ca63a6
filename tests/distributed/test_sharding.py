"""Sharded over two real processes is what the same two processes find with whole networks.

Three optimizer steps of the trainer, with all hooks: losses, the state of method and optimizer. And
runs that change from one way to the other where they are resumed.
"""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from builders import (
    BACKBONE,
    IMAGE_METHODS,
    StopAt,
    join_as,
    leave,
    random_images,
    small_recipe,
    start_processes,
)
from kinds import SETTINGS, write_kinds
from similitude import pretrain
from similitude.data.loader import Loader
from similitude.distributed import rank, share_state_of_first, world_size
from similitude.distributed.launch import _free_port
from similitude.distributed.sharding import (
    check_mean,
    check_sharding,
    load_whole_state,
    own_parameter,
    own_part,
    part_of,
    whole,
    whole_state_in_first,
)
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig
from similitude.listener import Silent
from similitude.methods import build_method
from similitude.recipes import OptimizerConfig, Recipe
from similitude.recipes.recipe import InitConfig
from similitude.runs.checkpoint import Checkpoint, load_checkpoint
from similitude.training.pretrain import train
from similitude.training.step import Pretraining

WORLD, STEPS = 2, 3
CPU = torch.device("cpu")
VIT = BackboneConfig(
    name="vit_tiny_patch16_224",
    options={
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 12,
        "depth": 2,
        "num_heads": 2,
        "dynamic_img_size": True,
        "dynamic_img_pad": True,
        "drop_path_rate": 0.2,
    },
)
# one process draws other paths to drop than two do
STEADY = VIT.changed(options={**VIT.options, "drop_path_rate": 0.0})
ADAPTING = InitConfig(name="x", fingerprint="x", frozen=0.5, layer_decay=0.7, head_warmup=0.3)
TWICE = {"activation_checkpointing": True}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in IMAGE_METHODS},
    "BatchNorm": {"name": "byol", "backbone": BACKBONE},
    "BatchNorm in parts": {"name": "moco_v2", "backbone": BACKBONE, **TWICE},
    "blocks twice": {"name": "dino", **TWICE},
    "bfloat16": {"name": "moco_v3", "precision": "bfloat16", **TWICE},
    "from published weights": {"name": "byol", "init": ADAPTING},
    **{
        optimizer: {"name": "dino", "optimizer": OptimizerConfig(name=optimizer, base_lr=0.1)}
        for optimizer in ("lars", "larc", "adamw")
    },
}
# Of the largest number of a tensor; all other cases agree in every bit. A norm that is made of the
# norms of parts is rounded in other places, and so is a convolution whose weights lie in another
# order; of the keys' biases, whose gradients are nothing but rounding, Adam makes whole steps.
ROUNDED = {
    **dict.fromkeys(("dino", "blocks twice", "lars", "larc", "BatchNorm in parts"), 1e-6),
    "adamw": 1e-4,
}
# Other data than images.
KINDS = [
    *(("audio", "byol_a"), ("audio", "cpc_audio"), ("sensors", "clip"), ("text", "simclr")),
    *(("video", "byol"), ("graph", "barlow_twins")),
]
# name: whether it is sharded before it is stopped, and when it goes on
RUNS = {"whole": (False, False), "parted": (True, False), "parts": (False, True)}


def recipe_of(name: str, **changes: Any) -> Recipe:
    given = {"backbone": VIT, "precision": "float32", "memory_format": "channels_last"}
    return small_recipe(name, **{**given, **changes})


def three_steps(case: str, *, shard: bool) -> dict[str, Any]:
    recipe = recipe_of(**CASES[case])
    torch.manual_seed(0)
    method = build_method(recipe.method, recipe.backbone.build())
    share_state_of_first(method)
    module = Pretraining(method, recipe, steps_per_epoch=4, shard=shard)
    loader = Loader(
        random_images(64),
        batch_size=recipe.batch_size,
        seed=0,
        total_steps=STEPS,
        device=CPU,
        part=rank(),
        parts=world_size(),
        partners=module.multi_view.has_partner,
    )
    assert all(isinstance(p, DTensor) == shard for p in method.backbone.parameters())
    start = {name: whole(value).clone() for name, value in method.state_dict().items()}
    losses = [module.training_step(batch)["loss"] for batch in loader]
    state = {name: whole(value).clone() for name, value in method.state_dict().items()}
    optimizer = whole_state_in_first(module.optimizer)["state"]
    return {"start": start, "losses": losses, "state": state, "optimizer": optimizer}


def meet(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=WORLD
    )


def process(number: int, folder: str) -> None:
    meet(number, folder)
    for case in CASES:
        for shard in (False, True):
            torch.save(three_steps(case, shard=shard), f"{folder}/{case}-{shard}-{number}")
    leave()


def process_of_runs(number: int, folder: str) -> None:
    meet(number, folder)
    for name, (first, then) in RUNS.items():
        place = Path(folder) / name
        options: dict[str, Any] = {"device": CPU, "report": False}
        given = (random_images(44), "x", recipe_of("byol", backbone=STEADY), place)
        assert train(*given, listener=StopAt(2), shard=first, **options) is None
        dist.barrier()  # the first process has written it
        halfway = last(place)
        assert 0 < halfway.step < 6
        if number == 0:
            shutil.copytree(place, f"{place}-halfway")
        dist.barrier()  # who goes on writes it again
        options["checkpoint"] = halfway
        assert train(*given, listener=Silent(), shard=then, **options) is not None
        dist.barrier()
    leave()


def process_of_kinds(number: int, port: int, places: dict[str, Path], folder: str) -> None:
    join_as(number, WORLD, port)
    for kind, name in KINDS:
        settings = [*SETTINGS[kind], "batch_size=8", "memory_format=contiguous"]
        for shard in (False, True):
            out = Path(folder) / f"{kind}-{name}-{shard}"
            options: dict[str, Any] = {"overrides": settings, "report": False, "shard": shard}
            pretrain(places[kind], method=name, out=out, epochs=1, **options)
    leave()


def last(run: Path) -> Checkpoint:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two real processes, all cases in one start."""
    place = tmp_path_factory.mktemp("processes")
    start_processes(process, str(place))
    return place


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two real processes, stopped and resumed."""
    place = tmp_path_factory.mktemp("runs")
    start_processes(process_of_runs, str(place))
    return place


def pairs(a: Any, b: Any, where: str = "") -> list[tuple[str, Tensor, Tensor]]:
    """All numbers of two equally built values, and where they stand."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return [pair for k in a for pair in pairs(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, list):
        assert len(a) == len(b)
        return [pair for i in range(len(a)) for pair in pairs(a[i], b[i], f"{where}.{i}")]
    return [(where, torch.as_tensor(a), torch.as_tensor(b))]


def assert_alike(a: Any, b: Any, share: float) -> None:
    """No number differs by more than a share of the largest one of its tensor."""
    for where, x, y in pairs(a, b):
        if not torch.equal(x, y):
            largest = share * float(x.abs().max())
            torch.testing.assert_close(y, x, rtol=0, atol=largest, msg=lambda m: f"{where}: {m}")  # noqa: B023


in_processes = [
    pytest.mark.slow,
    pytest.mark.xdist_group("processes"),
    pytest.mark.usefixtures("unchecked_runs"),
]


def in_two_processes(test: Any) -> Any:
    for mark in in_processes:
        test = mark(test)
    return test


@in_two_processes
@pytest.mark.parametrize("case", CASES)
def test_parts_take_the_steps_of_whole_networks(folder, case):
    whole = torch.load(folder / f"{case}-False-0", weights_only=True)
    for number in range(WORLD):
        parts = torch.load(folder / f"{case}-True-{number}", weights_only=True)
        assert_alike(whole["start"], parts["start"], 0)
        if number > 0:
            parts["optimizer"] = whole["optimizer"]  # the first process alone gathers it
        assert_alike(whole, parts, ROUNDED.get(case, 0))


@in_two_processes
@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_sharded_or_not(runs, name):
    """Its file is that of whole networks, and so is all that is measured."""
    whole, other = last(runs / "whole"), last(runs / name)
    assert whole.step == other.step == 6
    assert_alike(whole.method, other.method, 0)
    assert_alike(whole.optimizer["state"], other.optimizer["state"], 0)
    assert whole.optimizer["param_groups"] == other.optimizer["param_groups"]
    first, second = (measured(runs / n) for n in ("whole", name))
    assert first == second


def measured(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    timed = ("images_per_second", "waiting_share")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two real processes on every kind of data, sharded or not."""
    place = tmp_path_factory.mktemp("kinds")
    start_processes(process_of_kinds, _free_port(), write_kinds(place), str(place))
    return place


@in_two_processes
@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_every_kind_of_data_is_trained_on_sharded(kinds, kind, name):
    whole, parts = (last(kinds / f"{kind}-{name}-{shard}") for shard in (False, True))
    assert whole.step == parts.step > 1
    assert_alike(whole.method, parts.method, 0)
    assert_alike(whole.optimizer["state"], parts.optimizer["state"], 0)


@in_two_processes
def test_a_sharded_run_goes_on_in_one_process(runs, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(runs / "parted-halfway", place)
    halfway = last(place)
    given = (random_images(44), "x", halfway.recipe, place)
    train(*given, device=CPU, listener=Silent(), report=False, checkpoint=halfway)
    start, two, one = (
        torch.cat([value.double().flatten() for value in run.method.values()])
        for run in (halfway, last(runs / "whole"), last(place))
    )
    assert (one - two).norm() < 1e-5 * (two - start).norm()  # rounding


def test_one_process_shards_nothing():
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD([own_parameter(p) for p in layer.parameters()], lr=1.0)
    assert optimizer.param_groups[0]["params"][0] is layer.weight
    assert own_part(layer.weight) is whole(layer.weight) is layer.weight
    assert torch.equal(part_of(layer.weight), layer.weight)


def test_what_sharding_does_not_go_with_is_refused(monkeypatch):
    with pytest.raises(UserError, match="there is one: give --devices"):
        check_sharding(None, CPU)
    monkeypatch.setattr("similitude.distributed.sharding.world_size", lambda: 2)
    check_sharding(None, CPU)
    with pytest.raises(UserError, match="in place of --micro-batch-size"):
        check_sharding(8, CPU)
    monkeypatch.delattr(torch.cpu.Stream, "record_event")
    with pytest.raises(UserError, match="shards on GPUs alone: install a later one"):
        check_sharding(None, CPU)
    check_sharding(None, torch.device("cuda"))


def process_that_adds_up(number: int, folder: str) -> None:
    meet(number, folder)
    check_mean(CPU)
    forward = F.linear
    F.linear = lambda *given: WORLD * forward(*given)
    with pytest.raises(UserError, match="adds gradients of sharded weights up on cpu"):
        check_mean(CPU)
    leave()


@in_two_processes
def test_sums_in_the_place_of_means_are_refused(tmp_path):
    start_processes(process_that_adds_up, str(tmp_path))


def test_a_state_that_is_loaded_keeps_its_order():
    """DINO's last layer has none before the second epoch, and then stands last in the file."""
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW(weights)
    for weight in reversed(weights):
        weight.grad = torch.ones(2)
        optimizer.step()
    state = optimizer.state_dict()
    fresh = torch.optim.AdamW([nn.Parameter(torch.ones(2)) for _ in range(2)])
    load_whole_state(fresh, state)
    assert list(fresh.state_dict()["state"]) == list(state["state"]) == [1, 0]
