"""The one collective a method needs, and where this process stands.

Everything here is the identity in one process. N samples per process, W processes, M = W N.
"""

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor
from torch.autograd.function import FunctionCtx


def world_size() -> int:
    """Number of processes W that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, 0 to W - 1; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(x: Shaped[Tensor, "N ..."]) -> Shaped[Tensor, "M ..."]:
    """Concatenate ``x`` over processes along dim 0, in rank order, with gradients.

    Every process computes the loss of the whole batch from the gathered rows. The gradient that
    reaches ``x`` is the sum over processes, W times that of one loss; DDP then averages over the
    W processes, so the update equals that of one process holding the whole batch.

    Args:
        x: the same shape in every process.
    """
    return x if world_size() == 1 else _Gather.apply(x)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]
