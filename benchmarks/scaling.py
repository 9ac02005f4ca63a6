"""What micro-batches and processes cost, and the memory they take.

    OMP_WAIT_POLICY=active python benchmarks/scaling.py CIFAR10_FOLDER/train

One epoch of SimCLR for each line, in a process of its own, in bfloat16 and channels_last. Prints
one Markdown table: the median of images per second over the epoch's second half, what it is to the
line it is compared with, and the most memory that a process held.
"""

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HOW = ("precision=bfloat16", "memory_format=channels_last", "compile=false")
# name: what pretrain is given, and the line to compare with
LINES: dict[str, tuple[dict[str, Any], str | None]] = {
    "batch 256": ({"batch_size": 256}, None),
    "batch 256, two processes": ({"batch_size": 256, "devices": 2}, "batch 256"),
    "batch 1,024": ({"batch_size": 1024}, None),
    "batch 1,024 in micro-batches of 256": (
        {"batch_size": 1024, "micro_batch_size": 256},
        "batch 1,024",
    ),
    "batch 4,096 in micro-batches of 256": (
        {"batch_size": 4096, "micro_batch_size": 256},
        "batch 256",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="cifar10.simclr")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.folder, args.recipe, LINES[args.one][0])))
        return
    here = [sys.executable, __file__, str(args.folder), "--recipe", args.recipe, "--one"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in LINES}
    for _ in range(args.rounds):  # the lines take turns
        for name in LINES:
            done = subprocess.run([*here, name], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{name}\n{done.stderr}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    print("| | images/s | ratio | GB | ratio |\n|---|---|---|---|---|")
    for name, (_, other) in LINES.items():
        cells = []
        for what, digits in (("speed", ",.0f"), ("gb", ".2f")):
            own = statistics.median(round_[what] for round_ in found[name])
            ratio = "-"
            if other is not None:
                pairs = zip(found[name], found[other], strict=True)
                ratio = f"{statistics.median(a[what] / b[what] for a, b in pairs):.2f}"
            cells += [f"{own:{digits}}", ratio]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measure(folder: Path, recipe: str, given: dict[str, Any]) -> dict[str, float]:
    """Speed and memory of one epoch in this process, or in those that it starts."""
    import similitude as sim

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        sim.pretrain(folder, recipe=recipe, epochs=1, out=out, report=False, overrides=HOW, **given)
        with (out / "metrics.csv").open() as file:
            rows = [row["images_per_second"] for row in csv.DictReader(file)]
    speeds = [float(speed) for speed in rows if speed]
    who = resource.RUSAGE_CHILDREN if given.get("devices", 1) > 1 else resource.RUSAGE_SELF
    return {
        "speed": statistics.median(speeds[len(speeds) // 2 :]),
        "gb": resource.getrusage(who).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    main()
