from typing import NamedTuple

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import Interval
from torch.profiler import record_function

from builders import random_images, small_recipe
from similitude import pretrain
from similitude.training import loop, profiling
from similitude.training.profiling import (
    IDLE,
    STAGES,
    STEPS,
    WARM_UP,
    own_seconds,
    step_profiler,
    table,
)


def profiled(step):
    with step_profiler(torch.device("cpu")) as profiler:
        for _ in range(WARM_UP + STEPS):
            step()
            profiler.step()
    return own_seconds(profiler.events())


@pytest.mark.slow
def test_time_counts_for_the_innermost_stage_and_nothing_else():
    x = torch.rand(600, 600)

    def step():
        with record_function("views"):
            x @ x
            with record_function("something else"), record_function("optimizer"):
                x @ x
                x @ x
        with record_function("no stage"):
            x @ x

    seconds = profiled(step)
    assert set(seconds) == {"views", "optimizer"}
    assert 0 < seconds["views"] < seconds["optimizer"]


class Kernel(NamedTuple):
    name: str
    duration: float


class Event(NamedTuple):
    """As of PyTorch's profiler, on a machine with a GPU."""

    name: str
    time_range: Interval
    kernels: tuple[Kernel, ...] = ()
    device_type: DeviceType = DeviceType.CPU


def test_on_a_gpu_the_time_is_that_of_kernels_whoever_gave_them_out():
    """The processor is done long before; a backward pass is given out by another thread."""
    work = (Kernel("matmul", 3e6), Kernel("backbone", 9e6))  # and the repeated name of a range
    events = [
        Event("ProfilerStep*", Interval(0, 10)),
        Event("heads and loss", Interval(1, 6)),
        Event("backbone", Interval(2, 4)),
        Event("aten::mm", Interval(3, 3.5), work),
        Event("aten::add", Interval(5, 5.5), (Kernel("add", 1e6),)),
        Event("backward", Interval(6, 9)),
        Event("aten::mm", Interval(7, 7.5), (*work, *work)),
        Event("aten::lost", Interval(9.5, 9.6), (Kernel("lost", 1e6),)),
        Event("backbone", Interval(20, 9e6), device_type=DeviceType.CUDA),
        Event("matmul", Interval(100, 100 + 15e6), device_type=DeviceType.CUDA),
    ]
    found = own_seconds(events)
    assert found == {"backbone": 3.0, "heads and loss": 1.0, "backward": 6.0, IDLE: 5.0}


def test_the_table_gives_shares():
    seconds = {"backbone": 0.9, "backward": 1.8, "views": 0.3}
    lines = table(seconds, 30).splitlines()
    rows = {line[:24].strip(): line[24:].split() for line in lines[1:-1]}
    assert rows["backbone"] == ["30.00", "30.0%"]
    assert rows["views"] == ["10.00", "10.0%"]
    assert rows["a whole step"] == ["100.00", "100.0%"]
    assert "optimizer" not in rows
    assert lines[-1] == "means of 30 steps; outside the networks 10.0%"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_a_profiled_run_has_the_weights_of_one_that_is_not(name, tmp_path, monkeypatch):
    for module in (profiling, loop):
        monkeypatch.setattr(module, "STEPS", 3)
    images = random_images(16 * (WARM_UP + 4))
    fixed = {"precision": "float32", "memory_format": "contiguous"}  # else a rule chooses
    recipe = small_recipe(name, batch_size=16, epochs=1, **fixed)
    runs = [
        pretrain(images, recipe=recipe, out=tmp_path / str(profile), profile=profile, report=False)
        for profile in (True, False)
    ]
    ours, theirs = (run.checkpoint.method for run in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    text = (runs[0].path / "profile.txt").read_text()
    assert [stage for stage in STAGES if stage in text][:3] == list(STAGES[:3])
    assert not (runs[1].path / "profile.txt").exists()


class Heard:
    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)

    def progress(self, what, done, total, note=""):
        if what == "training":
            self.sentences.append("training")


@pytest.mark.slow
def test_a_run_too_short_for_a_profile_is_told_before_it_trains(tmp_path):
    fixed = {"precision": "float32", "memory_format": "contiguous"}
    recipe = small_recipe("simclr", batch_size=16, epochs=1, **fixed)
    heard = Heard()
    run = pretrain(
        random_images(16 * WARM_UP),
        recipe=recipe,
        out=tmp_path / "run",
        profile=True,
        report=False,
        listener=heard,
    )
    (told,) = (s for s in heard.sentences if "--profile needs more than 5 steps" in s)
    assert "this run has 5 left" in told
    assert heard.sentences.index(told) < heard.sentences.index("training")
    assert not (run.path / "profile.txt").exists()
