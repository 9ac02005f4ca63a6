"""How long a training takes, by counting: its work, and what kinds of processors do in a second.

A count does not depend on what else a machine does, so the same command makes the same choices on
a busy machine as on a quiet one. The rates are measured (docs/results.md), or scaled from measured
ones where the table says so; the estimate is right within a third on a quiet machine.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from similitude.devices import capability_of, name_of
from similitude.distributed import processes_of_machine


@dataclass(frozen=True)
class Work:
    """What has to be done; everything counted for forward and, where there is one, backward.

    Attributes:
        dense: multiply-adds of linear layers, attention and convolutions over all channels.
        depthwise: multiply-adds of convolutions in groups, which reach a fraction of that rate.
        moved: numbers that layers read and write.
        calls: of layers, each of which takes a while to start, however little it does.
    """

    dense: float = 0.0
    depthwise: float = 0.0
    moved: float = 0.0
    calls: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __truediv__(self, number: float) -> "Work":
        return Work(*(getattr(self, f.name) / number for f in fields(self)))


@contextmanager
def counting(module: nn.Module) -> Iterator[list[Work]]:
    """Within the block every call of a layer inside ``module`` is added to the list.

    A backward pass costs twice a forward one; it is counted where a gradient will flow. A layer
    whose work its input and output do not tell has ``moved(*inputs)``: the numbers that it reads
    and writes besides.
    """
    found: list[Work] = []

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not (inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)):
            return
        passes = 3.0 if output.requires_grad else 1.0
        x, dense, depthwise = inputs[0], 0.0, 0.0
        if (moved := getattr(layer, "moved", None)) is not None:
            found.append(Work(moved=passes * moved(*inputs)))
        if getattr(layer, "fused_attn", None) is not None:  # timm's attention: x [N, tokens, D]
            found.append(Work(dense=passes * 2 * x.numel() * x.shape[1], calls=passes))
            return
        if next(layer.children(), None) is not None:
            return
        if isinstance(layer, nn.Conv2d):
            adds = output.numel() * layer.weight[0].numel()
            dense, depthwise = (0.0, adds) if layer.groups > 1 else (adds, 0.0)
        elif isinstance(layer, nn.Linear):
            dense = output.numel() * layer.in_features
        moved = x.numel() + output.numel()
        found.append(Work(passes * dense, passes * depthwise, passes * moved, passes))

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Rates:
    """What a core, or a whole GPU, does in a second; in units of :class:`Work`.

    Attributes:
        dense: multiply-adds of dense layers.
        depthwise: of convolutions in groups.
        moved: numbers read and written by layers.
        pixels: of views, made with all their operations.
    """

    dense: float
    depthwise: float
    moved: float
    pixels: float

    def times(self, number: float) -> "Rates":
        """The rates of so many."""
        return Rates(*(number * getattr(self, f.name) for f in fields(self)))


CALL_SECONDS = 35e-6  # to start a layer, on any processor

# Of one core in float32 and in bfloat16; None: bfloat16 brings nothing there. Measured on two
# cores each: AVX-512 with bfloat16 on an EPYC of the fourth generation. Scaled from it by the
# units the processors have: the others.
_FLOAT32 = {
    "AVX-512": Rates(65e9, 6.5e9, 3.1e9, 45e6),
    "AVX2": Rates(40e9, 4e9, 2.4e9, 35e6),
    "ARM": Rates(60e9, 4e9, 3.0e9, 35e6),
    "another processor": Rates(18e9, 2.4e9, 1.5e9, 20e6),
}
_BFLOAT16 = {
    "AMX": Rates(330e9, 3e9, 3.3e9, 45e6),
    "AVX-512 with bfloat16": Rates(120e9, 1.6e9, 3.2e9, 45e6),
}
# Of a whole GPU, by what its generation (compute capability) multiplies and moves; none is measured
_GPUS = {
    9: Rates(200e12, 8e12, 800e9, 20e9),
    8: Rates(80e12, 4e12, 400e9, 10e9),
    7: Rates(20e12, 2e12, 200e9, 6e9),
    0: Rates(5e12, 1e12, 100e9, 4e9),
}


@dataclass(frozen=True)
class Machine:
    """What computes.

    Attributes:
        kind: of processor: a key of the tables above.
        cores: that compute together, of those that the processes of a machine share; 1 for a GPU.
        float32: rates of all cores.
        bfloat16: likewise; None where it brings nothing.
    """

    kind: str
    cores: int
    float32: Rates
    bfloat16: Rates | None

    def seconds(self, work: Work, precision: str = "float32") -> float:
        """About how long it takes."""
        rates = self.bfloat16 if precision == "bfloat16" and self.bfloat16 else self.float32
        return (
            work.dense / rates.dense
            + work.depthwise / rates.depthwise
            + work.moved / rates.moved
            + work.calls * CALL_SECONDS
        )


def machine(device: torch.device) -> Machine:
    """The machine with this device."""
    if device.type != "cpu":
        major = capability_of(device)
        rates = _GPUS[max(key for key in _GPUS if key <= major)]
        return Machine(name_of(device), 1, rates.times(0.5), rates if major >= 8 else None)
    cores = torch.get_num_threads()
    if (processes := processes_of_machine()) > 1:  # srun gives each as many threads as all have
        cores = max(1, min(cores, (os.cpu_count() or 1) // processes))
    flags = _processor_flags()
    if "amx_bf16" in flags:
        kind, float32 = "AMX", _FLOAT32["AVX-512"]
    elif "avx512_bf16" in flags:
        kind, float32 = "AVX-512 with bfloat16", _FLOAT32["AVX-512"]
    elif platform.machine().lower() in ("arm64", "aarch64"):
        kind, float32 = "ARM", _FLOAT32["ARM"]
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        kind = {"AVX512": "AVX-512", "AVX2": "AVX2"}.get(capability, "another processor")
        float32 = _FLOAT32[kind]
    bfloat16 = _BFLOAT16.get(kind)
    return Machine(kind, cores, float32.times(cores), bfloat16 and bfloat16.times(cores))


@lru_cache
def _processor_flags() -> frozenset[str]:
    """What a processor of the x86 family says it can; empty for others."""
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    return frozenset()
