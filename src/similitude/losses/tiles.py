"""Losses over matrices that are never whole in memory.

A contrastive loss is a mean over rows, and a row needs its own line of the matrix of similarities
alone. So rows are taken some at a time, each tile's gradient is worked out along with its value,
and what stays is a gradient of the size of the inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Which part of the rows a process takes, and how many processes that have the same rows.
Share = tuple[int, int]
WHOLE: Share = (0, 1)
NUMBERS = 2**22  # in a tile: 16 MB in float32, about what a processor's cache holds
DEVICE_NUMBERS = 2**26  # on an accelerator, which wants fewer and larger ones


def mean_in_tiles(
    loss: Callable[..., Tensor],
    rows: Sequence[Tensor],
    shared: Sequence[Tensor],
    *,
    width: int,
    share: Share = WHOLE,
) -> Tensor:
    """The mean of ``loss`` over tiles of rows, weighted by their size: that of all rows at once.

    Where several processes have the same rows and shared tensors, each takes its share of the rows.

    Args:
        loss: called as ``loss(*rows of the tile, *shared)``, returns the mean over its rows; or
            several means in a vector, of which the first one is the loss and the others are
            measured along with it.
        rows: tensors with the same number of rows N.
        shared: tensors that every tile sees whole.
        width: numbers of the matrix that one row needs.
        share: which rows to take; all by default.

    Returns:
        The mean over the N rows. The first number is differentiable, once, in ``rows`` and
        ``shared``, which may change before the backward pass. Of a share: the sum over its rows
        times the number of processes / N, so that the mean over them is the mean over the N rows.
    """
    part, parts = share
    if parts > 1:
        count = len(rows[0])
        own = slice(count * part // parts, count * (part + 1) // parts)
        mean = mean_in_tiles(loss, [r[own] for r in rows], shared, width=width)
        return mean * (parts * (own.stop - own.start) / count)
    budget = NUMBERS if rows[0].device.type == "cpu" else DEVICE_NUMBERS
    # Each tile reads what is shared, and writes a gradient of its size: half as large pays for it.
    budget = max(budget, sum(t.numel() for t in shared) // 2)
    step = max(1, budget // max(1, width))
    tensors = [*rows, *shared]
    if not torch.is_grad_enabled():  # which the function below would not learn
        tensors = [t.detach() for t in tensors]
    return _InTiles.apply(loss, step, len(rows), *tensors)  # type: ignore[return-value]


def mean_over_bank_rows(
    loss: Callable[..., Tensor],
    features: Float[Tensor, "N P"],
    bank: Float[Tensor, "B P"],
    index: Int[Tensor, "N C"],
    weight: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, ""]:
    """``loss(features, bank[index])``, a mean over samples, without all N x C rows in memory.

    Args:
        loss: called as ``loss(features, bank_rows)`` for some samples at a time.
        features: one row for each sample.
        bank: one row for each sample of the data set.
        index: rows of the bank that each sample is compared with.
        weight: of each sample in the mean, where the loss takes one: ``loss(..., weight=...)``.
    """

    # its gradient for the bank is faster than that of bank[index]
    def of_tile(some: Tensor, index: Tensor, *others: Tensor) -> Tensor:
        *weights, bank = others
        given = {"weight": weights[0]} if weights else {}
        return loss(some, F.embedding(index, bank), **given)

    return mean_in_tiles(
        of_tile,
        [features, index, *([] if weight is None else [weight])],
        [bank],
        width=index.shape[1] * bank.shape[1],
    )


class _InTiles(torch.autograd.Function):
    """Works out the gradient along with the value, so that backward has only to scale it."""

    @staticmethod
    def forward(
        ctx: Any, loss: Callable[..., Tensor], step: int, num_rows: int, *tensors: Tensor
    ) -> Tensor:
        wanted = ctx.needs_input_grad[3:]
        grads = {i: torch.zeros_like(tensors[i]) for i, w in enumerate(wanted) if w}
        whole = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
        count = len(tensors[0])
        total = tensors[0].new_zeros(())
        for start in range(0, count, step):
            tile = slice(start, start + step)
            inputs = [
                t[tile].detach().requires_grad_(w) if i < num_rows else whole[i]
                for i, (t, w) in enumerate(zip(tensors, wanted, strict=True))
            ]
            with torch.set_grad_enabled(bool(grads)):
                value = loss(*inputs) * (len(inputs[0]) / count)
                first = value.flatten()[0]
            total = total + value.detach()
            if not grads:
                continue
            found = torch.autograd.grad(first, [inputs[i] for i in grads], allow_unused=True)
            for (i, grad), new in zip(grads.items(), found, strict=True):
                if new is not None:
                    (grad[tile] if i < num_rows else grad).add_(new)
        ctx.save_for_backward(*(grads.get(i) for i in range(len(tensors))))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        first = grad.flatten()[0]
        return None, None, None, *(None if g is None else g * first for g in ctx.saved_tensors)
