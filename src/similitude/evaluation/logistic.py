"""Multinomial logistic regression for many small problems or one large one, in one optimizer.

Shapes: B data sets solved at once, F problems per data set (they share the rows and differ in the
row weights), N rows, D features, C classes.

The objective of one problem, in nats, is::

    sum_i w_i * cross_entropy(x_i W + b, y_i) + penalty / 2 * ||W||^2,   sum_i w_i = 1

so ``penalty = 1 / (N * C_sklearn)`` for equal row weights; the bias ``b`` is not penalized. It is
minimized by L-BFGS (Nocedal and Wright, Numerical Optimization, 2nd ed., algorithm 7.4) in the
coordinates ``V = L^T W`` with ``L L^T = c X^T X / N + penalty I``: at the start this is Newton's
metric (Boehning 1992), which removes the correlations between features that make plain
gradient descent on raw pixels slow.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from similitude.errors import UserError

HISTORY = 8
MAX_HALVINGS = 12
SUFFICIENT_DECREASE = 1e-4
METRIC_ROWS_PER_FEATURE = 4  # the metric is only a guide, so a part of a large data set is enough
MAX_LOGITS = 2**25  # entries held at once


class Rows(NamedTuple):
    """The data of B x F problems."""

    x: Float[Tensor, "B N D"]
    y: Int[Tensor, "B N"]
    weight: Float[Tensor, "B F N"]


def fit_logistic(
    rows: Rows,
    num_classes: int,
    penalty: float,
    *,
    start: Float[Tensor, "B F D1 C"] | None = None,
    max_iterations: int,
    tolerance: float,
) -> Float[Tensor, "B F D1 C"]:
    """Minimize the penalized cross-entropy of every problem.

    Args:
        rows: Inputs, class numbers 0..C-1 and row weights that sum to 1 in each problem.
        num_classes: C.
        penalty: L2 penalty, > 0.
        start: Coefficients to start from; zeros when not given.
        max_iterations: Upper bound of the number of L-BFGS steps.
        tolerance: A problem is solved when half the squared gradient norm in the Newton-like
            metric, an estimate of how far the loss is above its minimum, falls below this share
            of the loss.

    Returns:
        Coefficients; the last of the D+1 rows is the bias.
    """
    if start is None:
        shape = (*rows.weight.shape[:2], rows.x.shape[2] + 1, num_classes)
        start = rows.x.new_zeros(shape)
    factor, curvature = _metric_factor(rows, start, penalty)

    def objective(v: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = _loss_and_gradient(rows, _from_metric(factor, v), penalty)
        return loss, _gradient_to_metric(factor, gradient)

    # The curvature is at most X^T X / 2 (Boehning), so a first step this long cannot overshoot.
    first_scale = (2 * curvature).clamp(max=1.0)[:, None].expand(rows.weight.shape[:2])
    v = _to_metric(factor, start)
    v = _lbfgs(objective, v, first_scale, max_iterations, tolerance)
    return _from_metric(factor, v)


def logits(x: Float[Tensor, "B N D"], coefficients: Float[Tensor, "B F D1 C"]) -> Tensor:
    """Scores ``x W + b`` of every problem, [B, F, N, C]."""
    b, f, d1, c = coefficients.shape
    wide = coefficients.transpose(1, 2).reshape(b, d1, f * c)
    scores = torch.baddbmm(wide[:, -1:], x, wide[:, :-1])
    return scores.view(b, x.shape[1], f, c).transpose(1, 2)


def _loss_and_gradient(
    rows: Rows, coefficients: Float[Tensor, "B F D1 C"], penalty: float
) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B F D1 C"]]:
    b, f, d1, c = coefficients.shape
    n = rows.x.shape[1]
    weights = coefficients[:, :, :-1]
    loss = (weights.double() ** 2).sum((2, 3)) * (penalty / 2)
    gradient = torch.zeros_like(coefficients)
    gradient[:, :, :-1] = penalty * weights
    step = max(1, MAX_LOGITS // (b * f * c))
    for i in range(0, n, step):
        x, w = rows.x[:, i : i + step], rows.weight[:, :, i : i + step]
        y = rows.y[:, None, i : i + step, None].expand(b, f, -1, 1)
        log_p = F.log_softmax(logits(x, coefficients), dim=-1)
        loss -= (w * log_p.gather(3, y).squeeze(3)).sum(2, dtype=torch.float64)
        residual = log_p.exp_()
        residual.scatter_add_(3, y, residual.new_full(y.shape, -1.0))
        residual *= w[..., None]
        gradient[:, :, -1] += residual.sum(2)
        # This order of the product is several times faster than x^T @ residual.
        wide = residual.permute(0, 1, 3, 2).reshape(b, f * c, x.shape[1])
        gradient[:, :, :-1] += torch.bmm(wide, x).view(b, f, c, d1 - 1).transpose(2, 3)
    return loss, gradient


def _metric_factor(
    rows: Rows, start: Tensor, penalty: float
) -> tuple[Float[Tensor, "B D1 D1"], Float[Tensor, " B"]]:
    """Cholesky factor of the curvature at ``start``, with one number for all p (1 - p)."""
    n, d = rows.x.shape[1:]
    every = max(1, n // max(METRIC_ROWS_PER_FEATURE * d, 4096))
    x = F.pad(rows.x[:, ::every], (0, 1), value=1.0)
    if every == 1 and n * start.shape[1] * start.shape[3] <= MAX_LOGITS:
        p = logits(rows.x, start).softmax(-1)
    else:
        p = logits(rows.x[:, ::every], start[:, :1]).softmax(-1)
    curvature = (p * (1 - p)).mean((1, 2, 3)).clamp_min(1e-3)
    metric = torch.bmm(x.transpose(1, 2), x) * (curvature[:, None, None] / x.shape[1])
    identity = torch.eye(d + 1, dtype=x.dtype, device=x.device)
    margin = metric.diagonal(dim1=1, dim2=2).amax() * 10 * torch.finfo(x.dtype).eps
    # Rounding makes the metric of collapsed features indefinite: as much margin as it takes, which
    # is never more than its trace.
    while bool(margin.isfinite()):
        factor, failed = torch.linalg.cholesky_ex(metric + (penalty + margin) * identity)
        if not failed.any():
            return factor, curvature
        margin = 10 * margin
    raise UserError("the features are too large to fit: their squares are not finite")


def _flat(coefficients: Float[Tensor, "B F D1 C"]) -> Float[Tensor, "B D1 FC"]:
    return coefficients.transpose(1, 2).flatten(2)


def _unflat(wide: Float[Tensor, "B D1 FC"], like: Tensor) -> Float[Tensor, "B F D1 C"]:
    b, f, d1, c = like.shape
    return wide.view(b, d1, f, c).transpose(1, 2).contiguous()


def _from_metric(factor: Tensor, v: Tensor) -> Tensor:
    return _unflat(torch.linalg.solve_triangular(factor.mT, _flat(v), upper=True), v)


def _to_metric(factor: Tensor, coefficients: Tensor) -> Tensor:
    return _unflat(factor.mT @ _flat(coefficients), coefficients)


def _gradient_to_metric(factor: Tensor, gradient: Tensor) -> Tensor:
    return _unflat(torch.linalg.solve_triangular(factor, _flat(gradient), upper=False), gradient)


def _lbfgs(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]],
    v: Float[Tensor, "B F D1 C"],
    first_scale: Float[Tensor, "B F"],
    max_iterations: int,
    tolerance: float,
) -> Float[Tensor, "B F D1 C"]:
    """L-BFGS on every problem at once; each has its own step size and stops on its own."""
    loss, gradient = objective(v)
    history: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    scale = first_scale
    active = _dot(gradient, gradient) / 2 > tolerance * loss
    for _ in range(max_iterations):
        if not active.any():
            break
        direction = _two_loop(history, scale, gradient)
        new_v, new_loss, new_gradient, stuck = _line_search(
            objective, v, loss, direction, -_dot(gradient, direction), active
        )
        # What cannot go down any more has reached the precision of its numbers.
        active = active & ~stuck
        step, change = new_v - v, new_gradient - gradient
        curvature, length = _dot(step, change), _dot(change, change)
        valid = curvature > 1e-10 * length
        scale = torch.where(valid, curvature / length, scale)
        history.append((step, change, torch.where(valid, 1 / curvature, 0 * curvature)))
        v, loss, gradient = new_v, new_loss, new_gradient
        active &= _dot(gradient, gradient) / 2 > tolerance * loss
    return v


def _line_search(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]],
    v: Float[Tensor, "B F D1 C"],
    loss: Float[Tensor, "B F"],
    direction: Float[Tensor, "B F D1 C"],
    slope: Float[Tensor, "B F"],
    active: Bool[Tensor, "B F"],
) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, "B F"]]:
    """Halve each active problem's step until its loss has gone down enough (Armijo).

    Returns:
        New coordinates, loss and gradient, and a mask of problems that found no step: they stay.
    """
    bound = loss + 4 * torch.finfo(v.dtype).eps * loss.abs()
    size = active.to(v.dtype)
    halvings = 0
    while True:
        new_v = v - size[..., None, None] * direction
        new_loss, new_gradient = objective(new_v)
        # Not "above": a loss that is not a number is wrong too.
        wrong = active & (size > 0) & ~(new_loss <= bound + SUFFICIENT_DECREASE * size * slope)
        if not wrong.any():
            return new_v, new_loss, new_gradient, active & (size == 0)
        halvings += 1
        size = torch.where(wrong, size / 2 if halvings < MAX_HALVINGS else 0 * size, size)


def _dot(a: Float[Tensor, "B F D1 C"], b: Float[Tensor, "B F D1 C"]) -> Float[Tensor, "B F"]:
    return (a * b).sum((2, 3))


def _two_loop(
    history: deque[tuple[Tensor, Tensor, Tensor]],
    scale: Float[Tensor, "B F"],
    gradient: Float[Tensor, "B F D1 C"],
) -> Float[Tensor, "B F D1 C"]:
    """The inverse Hessian of L-BFGS applied to the gradient."""
    q = gradient.clone()
    alphas = []
    for step, change, inverse in reversed(history):
        alpha = inverse * _dot(step, q)
        q -= alpha[..., None, None] * change
        alphas.append(alpha)
    q *= scale[..., None, None]
    for (step, change, inverse), alpha in zip(history, reversed(alphas), strict=True):
        q += (alpha - inverse * _dot(change, q))[..., None, None] * step
    return q
