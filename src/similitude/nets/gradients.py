"""Edits of gradients between backward and the optimizer's step."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from similitude.distributed.sharding import norms, own_part

# pyright: reportPrivateImportUsage=false
# torch._foreach_* (what torch.optim itself runs on) treats all tensors in one call.


@torch.no_grad()
def clip_each_(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Clip every gradient by its own norm, as DINO's code does; not by the norm of all together.

    Args:
        parameters: those without a gradient are passed over.
        max_norm: a longer gradient g becomes max_norm * g / (|g| + 1e-6).
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    own = [own_part(grad) for grad in grads]
    lengths = norms(own, [isinstance(grad, DTensor) for grad in grads])
    torch._foreach_mul_(own, (max_norm / (lengths + 1e-6)).clamp_max(1.0).unbind())


def drop_gradients(module: nn.Module) -> None:
    """Remove the gradients, so that the optimizer leaves weights and momentum untouched.

    A rate of 0 would not do: momentum would gather for the first step that is free.
    """
    for parameter in module.parameters():
        parameter.grad = None
