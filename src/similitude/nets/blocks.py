"""The blocks of a network, and how they forget in the forward pass what they can compute again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from similitude.devices import random_state, random_state_set_to


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The smallest repeated parts: residual blocks, layers of a transformer; from the input on.

    A block stands in an ``nn.Sequential`` or an ``nn.ModuleList``, has at least two layers with
    weights, and no other block inside. Networks of plain layers have none.
    """
    lists = (m for m in network.modules() if isinstance(m, nn.Sequential | nn.ModuleList))
    found = {child for children in lists for child in children if _layers(child) > 1}
    return [
        module
        for module in network.modules()
        if module in found and found.isdisjoint(list(module.modules())[1:])
    ]


def _layers(module: nn.Module) -> int:
    return sum(1 for m in module.modules() if next(m.parameters(recurse=False), None) is not None)


def computed_twice(block: nn.Module) -> Callable[..., Any]:
    """``block.forward`` that keeps its input alone, and runs again in the backward pass.

    The second pass repeats the draws of dropout and the precision of the first one, and moves no
    running statistics: features and gradients are the same bits.
    """
    forward = block.forward

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        device = next(block.parameters()).device
        state = random_state(device)  # PyTorch's own repetition knows nothing of Apple's GPUs
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _again(block, state, device)),
            **kwargs,
        )

    return run


@contextmanager
def _again(block: nn.Module, state: Tensor, device: torch.device) -> Iterator[None]:
    """Within it draws are those from a state on, and what moves are copies of the buffers."""
    own = [(m, name, b) for m in block.modules() for name, b in m.named_buffers(recurse=False)]
    for module, name, buffer in own:
        setattr(module, name, buffer.clone())
    try:
        with random_state_set_to(state, device):
            yield
    finally:
        for module, name, buffer in own:
            setattr(module, name, buffer)
