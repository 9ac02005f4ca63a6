"""What a step of a recipe sends and keeps, counted on the real network; the plans made of it.

    python benchmarks/arithmetic.py

Takes steps of each recipe on a few images, among W processes of which W - 1 are pretended
(PyTorch's "fake" backend), notes what passes between them and what autograd keeps, and prints the
tables of docs/many-machines.md. What is not counted is a published number, with its source.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from similitude.data.loader import RowBatch
from similitude.distributed import average_gradients, sum_over_processes
from similitude.methods import build_method
from similitude.nets import batchnorm
from similitude.recipes import Recipe
from similitude.training import step
from similitude.training.step import Pretraining

FEW = (4, 8)  # images: what grows with them and what does not is told by two numbers


@dataclass(frozen=True)
class Counted:
    """Of one process and its share of a step, in bytes.

    Attributes:
        weights: that an optimizer moves.
        others: targets, queues, running statistics.
        optimizer: its state.
        activations: that autograd keeps for the backward pass.
        sent: gradients, sums of BatchNorm, and the rest: features and their gradients.
    """

    weights: float
    others: float
    optimizer: float
    activations: float
    sent: dict[str, float]


def counted(recipe: Recipe, processes: int) -> Counted:
    """What a step of the recipe takes in each of so many processes."""
    few, more = (_step(recipe, processes, images) for images in FEW)
    local = recipe.batch_size / processes

    def at(first: float, second: float) -> float:
        return first + (second - first) / (FEW[1] - FEW[0]) * (local - FEW[0])

    sent = {what: at(few.sent[what], more.sent[what]) for what in few.sent}
    activations = at(few.activations, more.activations)
    return Counted(few.weights, few.others, few.optimizer, activations, sent)


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
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            module.training_step(RowBatch(rows, index, 0))
    weights = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    whole = sum(t.nbytes for t in method.state_dict().values())
    state = [v for of in module.optimizer.state.values() for v in of.values()]
    optimizer = sum(v.nbytes for v in state if isinstance(v, torch.Tensor))
    return Counted(weights, whole - weights, optimizer, sum(kept.values()), sent)


@contextmanager
def _pretended(processes: int) -> Iterator[dict[str, float]]:
    """Within the block this is one of several processes; yields the bytes that it would send.

    In rings, as gloo and nccl send what is large: a sum passes 2 (W - 1) / W of its size through
    each process, a gathering W - 1 parts.
    """
    sent = dict.fromkeys(("gradients", "BatchNorm", "features"), 0.0)
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
