"""One process = two processes = four micro-batches, for every method, in float64.

Three optimizer steps with all hooks; compared are the losses, the gradients of every step, and
every parameter and buffer at the end: targets, queues, banks, centers, prototypes. Methods that
compare sensors do so on samples of which entries are missing.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import steps
from builders import IMAGE_METHODS, leave, start_processes
from steps import BACKBONES, SENSOR_METHODS

WORLD = 2
three_steps = cache(steps.three_steps)


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=WORLD
    )
    for name in IMAGE_METHODS:
        for backbone in BACKBONES:
            results = three_steps(name, backbone)
            torch.save(results, f"{folder}/{name}-{backbone}-{number}")
        torch.save(three_steps(name, "smooth", 2), f"{folder}/{name}-micro-{number}")
    for name in SENSOR_METHODS:
        torch.save(three_steps(name), f"{folder}/{name}-{number}")
    leave()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two real processes, all methods in one start."""
    place = tmp_path_factory.mktemp("processes")
    start_processes(process, str(place))
    return place


def assert_same(ours: Any, expected: Any) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("processes"),
    pytest.mark.usefixtures("unchecked_runs"),
]


@pytest.mark.parametrize("number", range(WORLD))
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_two_processes_are_one(folder, name, backbone, number):
    together = torch.load(folder / f"{name}-{backbone}-{number}", weights_only=True)
    assert_same(together, three_steps(name, backbone))


@pytest.mark.parametrize("number", range(WORLD))
@pytest.mark.parametrize("name", SENSOR_METHODS)
def test_two_processes_are_one_where_entries_are_missing(folder, name, number):
    together = torch.load(folder / f"{name}-{number}", weights_only=True)
    assert_same(together, three_steps(name))


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_four_micro_batches_are_one_batch(name):
    assert_same(three_steps(name, "smooth", 2), three_steps(name, "smooth"))


@pytest.mark.parametrize("number", range(WORLD))
@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_micro_batches_in_two_processes_are_one_batch(folder, name, number):
    together = torch.load(folder / f"{name}-micro-{number}", weights_only=True)
    assert_same(together, three_steps(name, "smooth"))


@pytest.mark.parametrize("name", [*IMAGE_METHODS, *SENSOR_METHODS])
def test_the_comparison_would_notice(name):
    """The three steps do move everything: another first batch gives other losses and gradients."""
    first = three_steps(name, "smooth")
    torch.manual_seed(1)
    assert first["losses"][0] != first["losses"][-1]
    assert any(grad.any() for grad in first["gradients"][-1].values())
