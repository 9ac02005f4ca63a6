"""The device that is compared with the processor, and arithmetic that can be compared."""

import os
from collections.abc import Iterator

import pytest
import torch

from similitude.devices import CHOSEN, best_device

# Before the first product on a GPU: with it cuBLAS repeats itself.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
REHEARSE = "SIMILITUDE_REHEARSE"


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The GPU; with SIMILITUDE_REHEARSE=1 the processor, where there is none."""
    device = best_device()
    if device.type == "cpu" and not os.environ.get(REHEARSE):
        pytest.skip(
            "no GPU: these tests compare one with the processor; "
            f"{REHEARSE}=1 runs them on the processor alone"
        )
    return device


@pytest.fixture
def exact(gpu: torch.device) -> Iterator[None]:
    """Float32 is float32: without TensorFloat-32, whose products have 11 bits."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.allow_tf32 = value


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch):
    """A function that makes a device the one that commands use."""

    def choose(device: torch.device) -> torch.device:
        monkeypatch.setenv(CHOSEN, str(device))
        return device

    return choose
