"""What would break or wait on a GPU, found without one: everything runs on a device that is far.

See ``far_device.py`` for what is an error there. The numbers are those of the processor.
"""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

import similitude as sim
from builders import IMAGE_METHODS, START, TinyBackbone, random_batch, small_config, write_photos
from far_device import FarDeviceError, far_device, fetched, must_not_wait, send_, sent
from kinds import OF_FILMS, SETTINGS, write_kinds
from similitude import devices
from similitude.method import Batch, Method
from similitude.methods import build_method
from similitude.runs.metrics import read_metrics
from similitude.training.step import Pretraining

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked_runs")]

IMAGE_SETTINGS = ["backbone.base_width=4", "precision=float32"]


def test_the_far_device_refuses_what_a_gpu_does():
    near = torch.arange(4.0)
    with far_device() as device:
        far = near.to(device, non_blocking=True)
        wrong = [
            lambda: far + near,
            lambda: far.sum().item(),
            lambda: bool(far.any()),
            lambda: far.cpu(),
            lambda: far[far > 1],
            lambda: far.nonzero(),
            lambda: near.to(device),
            lambda: far.double(),
            lambda: far[near.long()],
        ]
        for act in wrong:
            with pytest.raises(FarDeviceError):
                act()
        far.mul_(2)
        assert fetched(far + 1).tolist() == [1, 3, 5, 7]


def step_of(method: Method, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step, and the state after it."""
    torch.manual_seed(1)  # for dropout
    optimizer = torch.optim.SGD(method.param_groups(), lr=0.1, momentum=0.9)
    loss = method.training_loss(batch, START).loss
    loss.backward()
    method.before_step(START)
    optimizer.step()
    method.after_step(START)
    return fetched(loss.detach()), fetched(dict(method.state_dict()))


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_a_step_waits_for_nothing_and_gives_the_same_bits(name):
    """In the middle of a run: at the start some methods ask what their memory holds."""
    methods = []
    for _ in range(2):
        torch.manual_seed(0)
        method = build_method(small_config(name), TinyBackbone())
        for seed in range(5):  # then queues are full
            method.training_loss(random_batch(method, seed=seed), START)
        methods.append(method)
    batch = random_batch(methods[0])
    loss, state = step_of(methods[0], batch)
    with far_device():
        send_(methods[1])
        far_loss, far_state = step_of(
            methods[1], Batch([sent(view) for view in batch.views], sent(batch.index))
        )
    assert torch.equal(far_loss, loss)
    assert all(torch.equal(far_state[name], value) for name, value in state.items())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    return {"image": write_photos(folder / "photos", 64), **write_kinds(folder)}


# Not graphs, whose matrices of edges are sparse: to put one in order, a GPU is waited for.
FIRST = 2  # step that must not wait: before, memories may ask whether they hold anything
RUNS = [
    ("image", "simclr"),
    ("image", "cpc_v2"),
    ("audio", "byol_a"),
    ("audio", "speech_simclr"),
    ("audio", "cpc_audio"),
    ("sensors", "cmc"),
    ("sensors", "clip"),
    ("text", "simclr"),
    ("video", "byol"),
    ("video", "elo"),
]


@pytest.mark.parametrize(("kind", "name"), RUNS)
def test_a_run_is_that_of_the_processor_and_its_steps_wait_for_nothing(data, tmp_path, kind, name):
    settings = {**SETTINGS, "image": IMAGE_SETTINGS}[kind]
    settings = OF_FILMS if name == "elo" else settings

    def run(out: Path) -> list[float]:
        sim.pretrain(data[kind], method=name, out=out, epochs=2, overrides=settings, report=False)
        return [row["loss"] for row in read_metrics(out / "metrics.csv") if "loss" in row]

    near = run(tmp_path / "near")
    taken = Pretraining.training_step

    def strict(self: Pretraining, batch: Any) -> dict[str, Tensor]:
        if self.step < FIRST:
            return taken(self, batch)
        with must_not_wait():
            return taken(self, batch)

    with patch.object(Pretraining, "training_step", strict), far_device(may_wait=True) as device:
        assert devices.best_device() == device
        far = run(tmp_path / "far")
    # sums in another order: kernels of the processor that a far device does not have
    assert far == pytest.approx(near, rel=1e-5)


def test_commands_give_on_the_device_what_they_give_on_the_processor(data, tmp_path):
    out = tmp_path / "run"
    sim.pretrain(data["image"], out=out, epochs=1, overrides=IMAGE_SETTINGS, report=False)
    shutil.copytree(out, tmp_path / "far")

    def use(place: Path) -> list[Any]:
        run = sim.load(place)
        table = run.evaluate(data["image"])
        return [run.embed(data["image"]).x, table.to_json()["rows"]]

    near = use(out)
    with far_device(may_wait=True):
        far = use(tmp_path / "far")
    assert torch.equal(near[0], far[0])
    assert near[1] == far[1]
