"""Three steps of every method on a GPU are those of the processor.

Tolerances: in float64 1e-8 of a number, which leaves room for sums in another order. In bfloat16,
where such a sum may be rounded to the next of 8 bits, losses within 5 % of the processor's, and
three steps in the same direction: a cosine of 0.9 between the ways that all weights went.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import steps
from builders import IMAGE_METHODS, leave, start_processes
from similitude.devices import number_of, on_cpu, take_own_device
from similitude.nets.precision import Arithmetic
from steps import SENSOR_METHODS, SOUND_METHODS

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unchecked_runs", "exact")]

CASES = [
    *((name, backbone) for name in IMAGE_METHODS for backbone in steps.BACKBONES),
    *((name, "") for name in (*SENSOR_METHODS, *SOUND_METHODS)),
]
BFLOAT16 = Arithmetic(torch.bfloat16, channels_last=True)
LOSS_TOLERANCE, LEAST_COSINE = 0.05, 0.9

three_steps = cache(steps.three_steps)


def assert_same(ours: Any, expected: Any) -> None:
    torch.testing.assert_close(on_cpu(ours), expected, rtol=1e-8, atol=1e-11)


@pytest.fixture
def wide(gpu: torch.device) -> torch.device:
    if gpu.type == "mps":
        pytest.skip("GPUs of Apple have no float64")
    return gpu


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_in_float64_they_are_those_of_the_processor(wide, name, backbone):
    assert_same(three_steps(name, backbone, device=wide), three_steps(name, backbone))


@pytest.mark.parametrize("name", [*IMAGE_METHODS, *SENSOR_METHODS, *SOUND_METHODS])
def test_in_bfloat16_they_go_the_same_way(gpu, name):
    start = steps.method_and_batches(name)[0].float().state_dict()
    how: dict[str, Any] = {"dtype": torch.float32, "arithmetic": BFLOAT16}
    known, found = three_steps(name, **how), on_cpu(three_steps(name, device=gpu, **how))
    for ours, expected in zip(found["losses"], known["losses"], strict=True):
        assert float(ours) == pytest.approx(float(expected), rel=LOSS_TOLERANCE, abs=0.02)

    def way(state: dict[str, Tensor]) -> Tensor:
        moved = [state[n] - start[n] for n in known["gradients"][0]]
        return torch.cat([m.flatten() for m in moved])

    cosine = torch.cosine_similarity(way(found["state"]), way(known["state"]), dim=0)
    assert float(cosine) > LEAST_COSINE


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_four_micro_batches_are_one_batch(wide, name):
    assert_same(three_steps(name, "smooth", 2, device=wide), three_steps(name, "smooth"))


def process(number: int, folder: str, shared: str) -> None:
    """All methods, in one of two processes; on one device, or each on its own."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        if shared:
            patch.setenv("SIMILITUDE_DEVICE", shared)
        backend = take_own_device(number)
        device = torch.device(shared or f"cuda:{number}")
        dist.init_process_group(
            backend, init_method=f"file://{folder}/store", rank=number, world_size=2
        )
        for name, backbone in CASES[:: 1 if shared else 5]:
            found = on_cpu(steps.three_steps(name, backbone, device=device))
            torch.save(found, f"{folder}/{name}-{backbone}-{number}")
    leave()


def shared_name(device: torch.device) -> str:
    """The device as all processes use it."""
    return "cuda:0" if device.type == "cuda" else device.type


@pytest.fixture(scope="module")
def folder(gpu, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two processes that share the device, through gloo."""
    if gpu.type == "mps":
        pytest.skip("gloo does not know the GPUs of Apple")
    place = tmp_path_factory.mktemp("processes")
    start_processes(process, str(place), shared_name(gpu))
    return place


@pytest.mark.xdist_group("gpu_processes")
@pytest.mark.parametrize(("name", "backbone"), [c for c in CASES if c[0] not in SOUND_METHODS])
def test_two_processes_on_one_device_are_one(folder, name, backbone):
    for number in range(2):
        together = torch.load(folder / f"{name}-{backbone}-{number}", weights_only=True)
        assert_same(together, three_steps(name, backbone))


def test_two_processes_with_a_gpu_each_are_one(gpu, tmp_path):
    """Through nccl."""
    if gpu.type != "cuda" or number_of("cuda") < 2:
        pytest.skip("fewer than two GPUs")
    start_processes(process, str(tmp_path), "")
    for name, backbone in CASES[::5]:
        together = torch.load(tmp_path / f"{name}-{backbone}-1", weights_only=True)
        assert_same(together, three_steps(name, backbone))
