"""What large networks take: activation checkpointing, and ViTs sharded over processes.

    OMP_NUM_THREADS=1 python benchmarks/large.py

Steps of SimCLR in processes of their own, in float32. Prints one Markdown table: seconds of a
processor in a step after the first, and the memory that a process held at most, and at the end,
beyond what it held before it had a network.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from process import memory

TWICE = {"activation_checkpointing": True}
SMALL = {"batch": 4, "steps": 2}
# here weights count, not what they compute: images of 32 px, which are 4 patches
FEW = {"size": 32, "batch": 4, "steps": 2}
LARGE, BASE = ({"backbone": f"vit_{size}_patch16_224", **FEW} for size in ("large", "base"))
HUGE = {"backbone": "vit_huge_patch14_224", **FEW, "size": 28}
LINES: dict[str, dict[str, Any]] = {
    "ViT-S/16": {"backbone": "vit_small_patch16_224", **SMALL},
    "ViT-S/16, blocks twice": {"backbone": "vit_small_patch16_224", **SMALL, **TWICE},
    "ResNet-50": {"backbone": "resnet50", **SMALL},
    "ResNet-50, blocks twice": {"backbone": "resnet50", **SMALL, **TWICE},
    "ViT-B/16, 2 processes": {**BASE, "processes": 2},
    "ViT-B/16, 2 processes, sharded": {**BASE, "processes": 2, "shard": True},
    "ViT-L/16": LARGE,
    "ViT-L/16, 2 processes, sharded": {**LARGE, "processes": 2, "shard": True},
    "ViT-L/16, 4 processes, sharded": {**LARGE, "processes": 4, "shard": True},
    "ViT-H/14, 2 processes, sharded": {**HUGE, "processes": 2, "shard": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What large networks take.")
    parser.add_argument("--only", default="", help="lines with this in their name")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(**LINES[args.one])))
        return
    print("| | s / step | GB at most | GB at the end |\n|---|---|---|---|")
    for name in [name for name in LINES if args.only in name]:
        found = in_processes(name, LINES[name].get("processes", 1))
        cells = [f"{max(one[what] for one in found):.2f}" for what in found[0]]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def in_processes(name: str, count: int) -> list[dict[str, float]]:
    """What each of so many processes measures."""
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number in range(count):
            place = {"RANK": number, "WORLD_SIZE": count, "MEETING": f"{folder}/meeting"}
            place["MALLOC_MMAP_THRESHOLD_"] = 2**16  # glibc gives back what is freed
            environment = os.environ | {key: str(value) for key, value in place.items()}
            command = [sys.executable, __file__, "--one", name]
            running.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            )
        said = [child.communicate()[0] for child in running]
    return [json.loads(lines.splitlines()[-1]) for lines in said]


def measure(
    backbone: str,
    batch: int,
    steps: int,
    size: int = 224,
    processes: int = 1,
    shard: bool = False,
    activation_checkpointing: bool = False,
) -> dict[str, float]:
    """Seconds and memory of steps in this process, one of several."""
    import torch
    import torch.distributed as dist

    from similitude.data.loader import RowBatch
    from similitude.distributed import rank
    from similitude.images.backbones import BackboneConfig
    from similitude.images.views import Canvases
    from similitude.methods import SimCLRConfig, build_method
    from similitude.recipes import OptimizerConfig, Recipe
    from similitude.training.step import Pretraining

    if processes > 1:
        where = f"file://{os.environ['MEETING']}"
        dist.init_process_group(
            "gloo", init_method=where, rank=int(os.environ["RANK"]), world_size=processes
        )
    recipe = Recipe(
        method=SimCLRConfig(),
        data={"image_size": size},  # type: ignore[arg-type]
        backbone=BackboneConfig(
            name=backbone, options={"img_size": size} if backbone.startswith("vit") else {}
        ),
        optimizer=OptimizerConfig(name="adamw", base_lr=0.001),
        epochs=1,
        batch_size=batch,
        precision="float32",
        activation_checkpointing=activation_checkpointing,
    )
    before = gigabytes("VmRSS")
    torch.manual_seed(0)
    method = build_method(recipe.method, recipe.backbone.build())
    module = Pretraining(method, recipe, steps_per_epoch=steps, shard=shard)
    own = batch // processes
    index = torch.arange(own) + own * rank()
    rows = Canvases(torch.randint(0, 256, (own, 3, size, size), dtype=torch.uint8))
    seconds = []
    for _ in range(steps):
        begin = time.process_time()
        module.training_step(RowBatch(rows, index, 0))
        seconds.append(time.process_time() - begin)
    most, end = (gigabytes(name) - before for name in ("VmHWM", "VmRSS"))
    return {"seconds": min(seconds[1:]), "most": most, "end": end}


def gigabytes(name: str) -> float:
    return memory(name) / 2**30


if __name__ == "__main__":
    main()
