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

    Args:
        events: of a profiler; an event has a name, a parent, and times in microseconds.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if event.name not in STAGES or event.device_type.name != "CPU":
            continue
        # On a GPU the host only starts the work: the longer of both is what the stage takes.
        took = max(event.cpu_time_total, event.device_time_total) / 1e6
        seconds[event.name] += took
        outer = event.cpu_parent
        while outer is not None and outer.name not in STAGES:
            outer = outer.cpu_parent
        if outer is not None:
            seconds[outer.name] -= took
    return seconds


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
