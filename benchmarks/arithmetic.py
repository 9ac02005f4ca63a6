"""What a step of a recipe sends and keeps, counted on the real network; the plans made of it.

    python benchmarks/arithmetic.py

Takes steps of each recipe on a few images, among W processes of which W - 1 are pretended
(PyTorch's "fake" backend), notes what passes between them and what autograd keeps, and prints the
tables of docs/many-machines.md. What is not counted is a published number, with its source.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from similitude.data.loader import RowBatch
from similitude.distributed import average_gradients, sum_over_processes
from similitude.methods import build_method
from similitude.nets import batchnorm
from similitude.recipes import Recipe, find_recipe
from similitude.recipes.budget import Work, counting
from similitude.training import step
from similitude.training.step import Pretraining

FEW = (2, 4)  # images: what grows with them and what does not is told by two numbers
PROCESSES = 32
BLOCKS = {"vit_small": 12, "vit_base": 12, "vit_large": 24}
IMAGENET = 1_281_167
JPEG = 110e3  # bytes of a photo of ImageNet in the mean
CANVAS = 3 * 256**2  # bytes of a photo in a pack of short sides of 256 px
DAY = 86_400
# A device, on paper: 312 TFLOP/s in bfloat16 of NVIDIA's data sheet of the A100, of which 20 % are
# reached, as SimCLR's TPU v3 reached 15 % of theirs; two operations are a multiply-add.
MULTIPLY_ADDS = 0.2 * 312e12 / 2
NETWORKS = {25: 25e9 / 8, 100: 100e9 / 8, 400: 400e9 / 8}  # Gbit/s of a device: bytes/s


def with_network(recipe: str, network: str) -> Recipe:
    found = find_recipe(recipe)
    options = dict(found.backbone.options)
    if "small" not in network:  # MoCo v3 has twice the heads of timm's there
        options.pop("num_heads", None)
    return found.changed(backbone=found.backbone.changed(name=network, options=options))


def plans() -> dict[str, Recipe]:
    vits = ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")
    named = {"SimCLR, ResNet-50": find_recipe("imagenet.simclr")}
    named["MoCo v3, ResNet-50"] = find_recipe("imagenet.moco_v3")
    named |= {f"MoCo v3, {_short(v)}": with_network("imagenet.moco_v3_vit", v) for v in vits}
    named["DINO, ResNet-50"] = find_recipe("imagenet.dino_resnet50")
    named |= {f"DINO, {_short(v)}": with_network("imagenet.dino", v) for v in vits}
    return {
        name: recipe.changed(
            precision="bfloat16",
            memory_format="channels_last" if "ResNet" in name else "contiguous",
            batch_size=max(recipe.batch_size, 1024),
        )
        for name, recipe in named.items()
    }


def _short(vit: str) -> str:
    return f"ViT-{vit.split('_')[1][0].upper()}/16"


@dataclass(frozen=True)
class Counted:
    """Of one process and its share of a step, in bytes; but for the first.

    Attributes:
        multiply_adds: of layers, for one image; forward and backward of all its views.
        weights: that an optimizer moves.
        others: targets, queues, running statistics.
        optimizer: its state.
        activations: that autograd keeps for the backward pass.
        sent: gradients, sums of BatchNorm, and the rest: features and their gradients.
    """

    multiply_adds: float
    weights: float
    others: float
    optimizer: float
    activations: float
    sent: dict[str, float]


def counted(recipe: Recipe, processes: int) -> Counted:
    """What a step of the recipe takes in each of so many processes."""
    few, more = (_of_all_blocks(recipe, processes, images) for images in FEW)
    local = recipe.batch_size / processes
    return _line(few, more, (local - FEW[0]) / (FEW[1] - FEW[0]))


def _of_all_blocks(recipe: Recipe, processes: int, images: int) -> Counted:
    """A ViT's blocks are alike: one and two of them tell the others."""
    kind = next((k for k in BLOCKS if k in recipe.backbone.name), None)
    if kind is None:
        return _step(recipe, processes, images)
    one, two = (
        _step(recipe.with_value("backbone.options", options), processes, images)
        for options in ({**recipe.backbone.options, "depth": depth} for depth in (1, 2))
    )
    return _line(one, two, BLOCKS[kind] - 1)


def _line(one: Counted, two: Counted, x: float) -> Counted:
    """What lies on the line through two, at 0 and 1, at x."""

    def at(first: Any, second: Any) -> Any:
        if isinstance(first, dict):
            return {name: at(first[name], second[name]) for name in first}
        return first + x * (second - first)

    return Counted(*(at(getattr(one, f.name), getattr(two, f.name)) for f in fields(Counted)))


def _step(recipe: Recipe, processes: int, images: int) -> Counted:
    """A real step on so few images."""
    torch.manual_seed(0)
    recipe = recipe.changed(method=recipe.method.small(2 * images), compile=False)
    with _pretended(processes) as sent:
        method = build_method(recipe.method, recipe.backbone.build()).train()
        module = Pretraining(method, recipe, steps_per_epoch=100)
        own = {t.untyped_storage().data_ptr() for t in method.state_dict().values()}
        kept: dict[int, int] = {}

        def keep(x: torch.Tensor) -> torch.Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return x

        rows, index = recipe.data.noise(images), torch.arange(images)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x)
        with hooks, counting(method) as calls:
            module.training_step(RowBatch(rows, index, 0))
    weights = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    whole = sum(t.nbytes for t in method.state_dict().values())
    state = [v for of in module.optimizer.state.values() for v in of.values()]
    optimizer = sum(v.nbytes for v in state if isinstance(v, torch.Tensor))
    work = sum(calls, Work())
    adds = (work.dense + work.depthwise) / images
    return Counted(adds, weights, whole - weights, optimizer, sum(kept.values()), sent)


@contextmanager
def _pretended(processes: int) -> Iterator[dict[str, float]]:
    """Within the block this is one of several processes; yields the bytes that it would send.

    In rings, as gloo and nccl send what is large: a sum passes 2 (W - 1) / W of its size through
    each process, a gathering W - 1 parts.
    """
    sent: dict[str, float] = dict.fromkeys(("gradients", "BatchNorm", "features"), 0.0)
    what = ["features"]

    def of(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            what.append(name)
            try:
                return function(*arguments)
            finally:
                what.pop()

        return call

    def all_reduce(x: torch.Tensor) -> None:
        sent[what[-1]] += 2 * (processes - 1) / processes * x.nbytes

    def all_gather(parts: list[torch.Tensor], x: torch.Tensor) -> None:
        sent[what[-1]] += (processes - 1) * x.nbytes
        for part in parts:
            part.copy_(x)

    dist.init_process_group("fake", rank=0, world_size=processes, store=FakeStore())
    try:
        with (
            patch.object(dist, "all_reduce", all_reduce),
            patch.object(dist, "all_gather", all_gather),
            patch.object(batchnorm, "gather", of("BatchNorm", batchnorm.gather)),
            patch.object(batchnorm, "sum_over_processes", of("BatchNorm", sum_over_processes)),
            patch.object(step, "average_gradients", of("gradients", average_gradients)),
        ):
            yield sent
    finally:
        dist.destroy_process_group()


def print_steps(found: dict[str, tuple[Recipe, Counted]]) -> None:
    """What one process of a step computes, keeps and sends."""
    print(
        f"\n| {PROCESSES} processes | batch | G multiply-adds per image | weights | gradients and "
        "optimizer | target, buffers | activations | gradients sent | BatchNorm | features |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, (recipe, c) in found.items():
        kept = (c.weights, c.weights + c.optimizer, c.others, c.activations)
        cells = [f"{recipe.batch_size:,}", f"{c.multiply_adds / 1e9:,.0f}"]
        cells += [f"{size / 1e9:.2f} GB" for size in kept]
        cells += [f"{size / 1e6:,.0f} MB" for size in c.sent.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_days(found: dict[str, tuple[Recipe, Counted]]) -> None:
    """How many devices a day of 100 epochs takes, and what share of a step the messages are."""
    rate = 100 * IMAGENET / DAY
    print(
        f"\n100 epochs of {IMAGENET:,} images in a day: {rate:,.0f} images/s; "
        f"{rate * JPEG / 1e6:,.0f} MB/s of JPEGs, {rate * CANVAS / 1e6:,.0f} MB/s of a pack of "
        f"{IMAGENET * CANVAS / 1e9:,.0f} GB.\n"
    )
    shares = " | ".join(f"messages, of that, at {name} Gbit/s" for name in NETWORKS)
    print(f"| | images/s of a device | devices | s per step of {PROCESSES} | {shares} |")
    print("|---|---|---|---|---|---|---|")
    for name, (recipe, c) in found.items():
        speed = MULTIPLY_ADDS / c.multiply_adds
        seconds = recipe.batch_size / PROCESSES / speed
        cells = [f"{speed:,.0f}", f"{rate / speed:.1f}", f"{seconds:.2f}"]
        sent = sum(c.sent.values())
        cells += [f"{100 * sent / by / seconds:.0f} %" for by in NETWORKS.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def print_memories() -> None:
    """What grows with the number of images."""
    print("\n| kept for each image, in every process | bytes | ImageNet-1k | 100 million |")
    print("|---|---|---|---|")
    for method in ("inst_disc", "memory_bank", "cmc", "diet"):
        sizes = []
        for images in (1000, 2000):
            recipe = find_recipe(f"imagenet.{method}")
            built = build_method(recipe.method.of_samples(images), recipe.backbone.build())
            sizes.append(sum(t.nbytes for t in built.state_dict().values()))
        each = (sizes[1] - sizes[0]) / 1000
        totals = (f"{each * n / 1e9:.1f} GB" for n in (IMAGENET, 1e8))
        print(f"| {method} | {each:,.0f} | {' | '.join(totals)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("only", nargs="*", default=[""], help="methods and networks by their words")
    words = parser.parse_args().only
    chosen = {name: r for name, r in plans().items() if any(word in name for word in words)}
    found = {name: (recipe, counted(recipe, PROCESSES)) for name, recipe in chosen.items()}
    print_steps(found)
    print_days(found)
    print_memories()


if __name__ == "__main__":
    main()
