"""Contrastive predictive coding: find the vector that was predicted among many. All in nats.

M predictions, P their size, C candidates of one prediction: the right one and S = C - 1 negatives,
T candidates that all predictions share.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from similitude.losses.precision import full_precision
from similitude.losses.tiles import mean_in_tiles


@full_precision
def cpc_info_nce(
    predictions: Float[Tensor, "M P"], targets: Float[Tensor, "M C P"], *, log_eps: float = 0.0
) -> Float[Tensor, ""]:
    """InfoNCE of one prediction step, with negatives of its own for each prediction (CPC).

    arXiv:1807.03748, eq. 4, with the bilinear score z . (W c) of eq. 3. Nothing is normalized.

    Args:
        predictions: W_k c, of any norm.
        targets: column 0 is the vector that was predicted, the others are negatives.
        log_eps: added to the probability inside the logarithm; 1e-11 in the code of Greedy InfoMax,
            which limits the loss of a prediction to about 25.

    Returns:
        Mean over the M predictions, 0 or more but for ``log_eps``. log(1 + S) when all scores are
        equal.
    """
    scores = torch.einsum("mp,mcp->mc", predictions, targets)
    log_p = scores[:, 0] - scores.logsumexp(dim=1)
    if log_eps > 0:
        log_p = torch.logaddexp(log_p, log_p.new_full((), math.log(log_eps)))
    return -log_p.mean()


@full_precision
def cpc_shared_info_nce(
    predictions: Float[Tensor, "M P"],
    targets: Float[Tensor, "T P"],
    positive_index: Int[Tensor, " M"],
) -> Float[Tensor, ""]:
    """The same where all predictions share the candidates (CPC v2, arXiv:1905.09272, App. A).

    Equal to :func:`cpc_info_nce` with each row's T candidates written out.

    Args:
        predictions: of any norm.
        targets: every vector of the batch, of any norm.
        positive_index: row of ``targets`` that each prediction is for.

    Returns:
        Mean over the M predictions, 0 or more. log(T) when all scores are equal.
    """

    def loss(predictions: Tensor, positive_index: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(predictions @ targets.T, positive_index)

    return mean_in_tiles(loss, [predictions, positive_index], [targets], width=len(targets))
