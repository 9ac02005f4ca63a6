"""Losses that assign samples to prototypes. N samples, K prototypes, V views, G assigned views."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from similitude.losses.precision import full_precision
from similitude.losses.views import mean_cross_entropy


@full_precision
def sinkhorn(
    scores: Float[Tensor, "N K"], *, epsilon: float, iterations: int
) -> Float[Tensor, "N K"]:
    """Soft assignments that use all prototypes alike (SwAV, arXiv:2006.09882, eq. 3).

    Sinkhorn-Knopp on exp(scores / epsilon), prototypes first, then samples; in the logarithm,
    because exp(1 / 0.01) is already beyond float32. Over several processes the caller gathers the
    scores: an assignment depends on the whole batch.

    Args:
        scores: similarity of each sample to each prototype, in [-1, 1] for unit vectors.
        epsilon: positive; the larger, the more even each row. 0.05 in SwAV.
        iterations: 0 or more; 3 in SwAV. Columns sum to N / K only in the limit.

    Returns:
        Assignments in [0, 1]; rows sum to 1 (after at least one iteration).
    """
    log_q = scores / epsilon
    if iterations == 0:
        log_q = log_q - log_q.flatten().logsumexp(dim=0) + math.log(len(scores))
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(dim=0, keepdim=True)
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
    return log_q.exp()


@full_precision
def swapped_prediction(
    scores: Sequence[Float[Tensor, "N K"]],
    assignments: Sequence[Float[Tensor, "N K"]],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Predict the assignment of one view from another (SwAV, arXiv:2006.09882, eqs. 1, 2 and 6).

    Args:
        scores: of V views, in [-1, 1] for unit vectors; row i of all views is sample i.
        assignments: of the first G views, rows sum to 1; detach them at the call.
        temperature: positive; 0.1 in SwAV.

    Returns:
        Cross-entropy in nats, mean over samples, the G assigned views and the V - 1 others of
        each. ln K when all scores are equal.

    Raises:
        UserError: fewer than two views.
    """
    return mean_cross_entropy([s / temperature for s in scores], assignments)
