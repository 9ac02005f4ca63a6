"""What differs between kinds of devices, and nothing of it elsewhere.

A device is a GPU of NVIDIA or AMD ("cuda"), one of Apple ("mps"), or the processor, on which all of
it works too.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity

from similitude.errors import UserError

WITHOUT_FLOAT64 = ["mps"]
CHOSEN = "SIMILITUDE_DEVICE"  # in the environment: the device to use in place of the best one
# Whether a kind is there; the first one that is, is used.
KINDS: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}


def best_device() -> torch.device:
    """Where this process computes: the GPU, where there is one.

    SIMILITUDE_DEVICE says otherwise: "cpu", "cuda", "cuda:1", "mps". With a number it holds for
    every process, so that several can share one GPU.

    Raises:
        UserError: the environment names one that is not there.
    """
    there = [kind for kind, is_there in KINDS.items() if is_there()]
    asked = os.environ.get(CHOSEN)
    if not asked:
        return torch.device(there[0])
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = None
    if device is None or device.type not in there or (device.index or 0) >= number_of(device.type):
        raise UserError(
            f"{CHOSEN} is {asked!r}, and this machine has {', '.join(there)}: set it to one of "
            'them, "cuda:1" for the second GPU, or unset it'
        )
    return device


def number_of(kind: str) -> int:
    """How many devices of a kind this machine has; there is one processor."""
    return torch.cuda.device_count() if kind == "cuda" else 1


def take_own_device(local_rank: int) -> str:
    """Give each process of a machine its own GPU, unless the environment names one for all.

    Args:
        local_rank: number of this process on its machine.

    Returns:
        The backend through which the processes talk; nccl needs a GPU for each.

    Raises:
        UserError: the device has no backend.
    """
    device = best_device()
    if device.type == "mps":
        raise UserError(
            f"several processes cannot talk on Apple's GPUs: start one, or set {CHOSEN}=cpu"
        )
    if device.type != "cuda":
        return "gloo"
    if device.index is not None:
        torch.cuda.set_device(device)
        return "gloo"
    # Slurm may show each process its own GPU alone, which is then number 0
    torch.cuda.set_device(local_rank % number_of("cuda"))
    return "nccl"


def moved(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on a device. Of what lies on the processor the copy may still be on its way.

    What goes the other way is waited for: the processor would read memory that is not written yet.
    """
    if x.device.type != "cpu":
        return x.to(device)
    # Of pinned memory a copy waits for nothing, not even for the work that the device has left.
    # Apple's GPUs would read what is no more there (github.com/pytorch/pytorch/issues/139550).
    pinned = x.pin_memory() if device.type == "cuda" else x
    return pinned.to(device, non_blocking=device.type != "mps")


def fetched(x: Tensor) -> Callable[[], Tensor]:
    """What gives ``x`` on the processor when it is called: then it is there, or is waited for."""
    if x.device.type != "cuda":
        return x.cpu
    there = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    there.copy_(x, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def get() -> Tensor:
        done.synchronize()
        return there

    return get


def on_cpu(content: Any) -> Any:
    """The same with every tensor in it on the processor, in dicts, lists and tuples too."""
    if isinstance(content, Tensor):
        return content.cpu()
    if isinstance(content, dict):
        return {key: on_cpu(value) for key, value in content.items()}
    return type(content)(map(on_cpu, content)) if type(content) in (list, tuple) else content


def constants(values: Sequence[float], like: Tensor) -> Tensor:
    """Numbers in the format of a tensor and on its device."""
    return moved(torch.tensor(values, dtype=like.dtype, device="cpu"), like.device)


def widest(x: Tensor) -> Tensor:
    """``x`` in float64, or in float32 on a device that has no wider numbers."""
    return x.float() if x.device.type in WITHOUT_FLOAT64 else x.double()


@contextmanager
def computing_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Within the block, products are of this number format: bfloat16, or float32 for all.

    Where a device has no other, float32 it is.
    """
    if torch.amp.is_autocast_available(device.type):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            yield
    else:
        yield


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was told, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def random_state(device: torch.device) -> Tensor:
    """The state of the device's global generator, on the processor."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def set_random_state(state: Tensor, device: torch.device) -> None:
    """Put the device's global generator where it was."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


@contextmanager
def random_state_set_to(state: Tensor, device: torch.device) -> Iterator[None]:
    """Within the block the device's global generator goes on from ``state``."""
    before = random_state(device)
    set_random_state(state, device)
    try:
        yield
    finally:
        set_random_state(before, device)


def name_of(device: torch.device) -> str:
    """Name of a GPU; "cpu" for the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def capability_of(device: torch.device) -> int:
    """Generation of a GPU of NVIDIA, such as 9; 0 for all others."""
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most that tensors have held on a GPU since the start of the process, where it counts."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def profiled(device: torch.device) -> list[ProfilerActivity]:
    """What a profiler looks at: the processor, which gives the work out, and the GPU."""
    on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return [ProfilerActivity.CPU, *on_gpu]
