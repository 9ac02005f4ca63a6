"""Where the time of a training step goes, as PyTorch's profiler sees it.

The stages are named with ``torch.profiler.record_function`` where they happen, so that any profiler
of PyTorch shows them.
"""

import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch.profiler import profile, schedule

from similitude.devices import profiled

WARM_UP = 5  # steps that are not timed: memory is taken, kernels are chosen
STEPS = 30  # that are timed
IDLE = "the GPU has nothing to do"
STAGES = (
    "waiting for images",
    "views",
    "backbone",
    "target backbone",
    "heads and loss",
    "backward",
    "sum over processes",
    "optimizer",
    "targets and schedules",
    "records",
    IDLE,
)
NETWORKS = ("backbone", "target backbone", "heads and loss", "backward")


def step_profiler(device: torch.device) -> profile:
    """A profiler whose ``step()`` is to be called after every training step."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # it tells of its start and its end otherwise
    return profile(
        activities=profiled(device),
        schedule=schedule(wait=0, warmup=WARM_UP, active=STEPS, repeat=1),
        acc_events=True,
    )


def own_seconds(events: Any) -> Mapping[str, float]:
    """Seconds of each stage, without those of the stages inside it.

    On a processor by its clock. A GPU does later what the processor gives out, so there a stage is
    the time of the kernels that were given out in it, in whatever thread: a backward pass is given
    out in another one. What is left between the first kernel and the last is ``IDLE``.

    Args:
        events: of a profiler; an event has a name, a thread, kernels, and times in microseconds.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    on_gpu = [e for e in events if e.device_type.name != "CPU" and not _is_annotation(e.name)]
    under_way: list[tuple[float, str]] = []  # end and name of stages, the innermost one last
    for event in sorted(events, key=lambda e: (e.time_range.start, -e.time_range.end)):
        start, end = event.time_range.start, event.time_range.end
        if event.device_type.name != "CPU":
            continue
        while under_way and under_way[-1][0] <= start:
            under_way.pop()
        if event.name in STAGES:
            if not on_gpu:
                seconds[event.name] += (end - start) / 1e6
                if under_way:
                    seconds[under_way[-1][1]] -= (end - start) / 1e6
            under_way.append((end, event.name))
        took = sum(kernel.duration for kernel in event.kernels if not _is_annotation(kernel.name))
        if under_way and took > 0:
            seconds[under_way[-1][1]] += took / 1e6
    if on_gpu:
        first = min(event.time_range.start for event in on_gpu)
        last = max(event.time_range.end for event in on_gpu)
        seconds[IDLE] = max(0.0, (last - first) / 1e6 - sum(seconds.values()))
    return seconds


def _is_annotation(name: str) -> bool:
    """Whether an event of the GPU repeats a range of the processor, and is no work."""
    return name in STAGES or name.startswith("ProfilerStep")


def table(seconds: Mapping[str, float], steps: int) -> str:
    """One line for each stage: its time in a step, and its share.

    Args:
        seconds: of each stage in all steps.
        steps: that were timed.
    """
    total = sum(seconds.values())
    rows = [(name, seconds[name]) for name in STAGES if seconds.get(name, 0) > 0]
    lines = [f"{'stage':<24}{'ms':>9}{'share':>8}"]
    for name, took in [*rows, ("a whole step", total)]:
        lines.append(f"{name:<24}{1e3 * took / steps:9.2f}{took / total:8.1%}")
    inside = sum(seconds.get(name, 0) for name in NETWORKS)
    lines.append(f"means of {steps} steps; outside the networks {1 - inside / total:.1%}")
    return "\n".join(lines) + "\n"
