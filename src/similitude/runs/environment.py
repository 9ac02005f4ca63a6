"""What a run was made with: software, machine, command, data and speed."""

import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from similitude import __version__
from similitude.devices import name_of
from similitude.distributed import world_size
from similitude.files.writing import write_text
from similitude.runs.metrics import Metrics
from similitude.sample import Samples


def write_environment(
    folder: Path,
    data: str,
    images: Samples[Any],
    metrics: Metrics,
    seconds: float,
    device: torch.device,
    title: str = "",
) -> None:
    """Write environment.json: software, machine, command, data and speed.

    And the ``title`` of a method, which the report reads without loading any.
    """
    rows = [row for row in metrics.rows if "images_per_second" in row]
    speeds = sorted(row["images_per_second"] for row in rows)
    waits = [row["waiting_share"] for row in rows]
    content = {
        "similitude": __version__,  # also of a checkout that is not installed
        **{name: version(name) for name in ("torch", "torchvision", "timm")},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "processes": world_size(),
        "device": name_of(device),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "data": data,
        "num_images": len(images),
        "noun": images.noun,
        "pictured": images.pictured,
        **({"title": title} if title else {}),
        "unreadable": len(images.unreadable),
        "ended": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": seconds,
        "images_per_second": speeds[len(speeds) // 2] if speeds else None,
        "waiting_share": sum(waits) / len(waits) if waits else None,
    }
    write_text(folder / "environment.json", json.dumps(content, indent=2))


def processor() -> str:
    """The processor's name; the platform module does not tell it on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
