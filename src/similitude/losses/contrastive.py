"""Contrastive losses: find the right candidate among many.

N samples, P projection size, Q stored negatives. All losses are in nats.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from similitude.losses.precision import full_precision, unit


@full_precision
def nt_xent(
    z1: Float[Tensor, "N P"], z2: Float[Tensor, "N P"], *, temperature: float
) -> Float[Tensor, ""]:
    """Normalized temperature-scaled cross-entropy (SimCLR, arXiv:2002.05709, eq. 1), in nats.

    Each of the 2N projections must pick its other view among the 2N - 1 others. The authors' code
    returns the sum of the two directions, twice the paper's mean; this is the paper's.

    Args:
        z1: projections of view 1, any norm.
        z2: projections of view 2, any norm; row i of both is sample i.
        temperature: positive; the paper uses 0.1 (ImageNet) and 0.5 (CIFAR-10).

    Returns:
        Mean over the 2N projections, 0 or more. log(2N - 1) when all similarities are equal.
    """
    z = unit(torch.cat([z1, z2]))
    logits = (z / temperature) @ z.T
    logits.fill_diagonal_(-torch.inf)  # a projection is not its own candidate
    positive_index = torch.arange(len(z), device=z.device).roll(len(z1))
    return F.cross_entropy(logits, positive_index)


@full_precision
def info_nce(
    query: Float[Tensor, "N P"],
    key: Float[Tensor, "N P"],
    negatives: Float[Tensor, "Q P"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """InfoNCE with stored negatives (MoCo, arXiv:1911.05722, eq. 1), in nats.

    Cross-entropy of 1 + Q logits, the first of which is right, written as
    -log sigmoid(positive - logsumexp(negatives)): the N x (1 + Q) matrix is never concatenated.

    Args:
        query: online projections, unit norm.
        key: target projections, unit norm; row i is the positive of query i.
        negatives: unit norm; must not contain ``key``.
        temperature: positive; 0.07 in MoCo v1, 0.2 in v2.

    Returns:
        Mean over the N queries, 0 or more. log(1 + Q) when all similarities are equal.
    """
    query = query / temperature
    positive = (query * key).sum(dim=1)
    return -F.logsigmoid(positive - (query @ negatives.T).logsumexp(dim=1)).mean()


@full_precision
def in_batch_info_nce(
    query: Float[Tensor, "N P"], key: Float[Tensor, "N P"], *, temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE whose candidates are the keys of the batch (MoCo v3, arXiv:2104.02057, Alg. 1).

    MoCo v3 multiplies by ``2 * temperature``, which keeps the gradient's size when the temperature
    changes; here that factor is left to the method.

    Args:
        query: predictions, any norm.
        key: target projections, any norm; row i is the positive of query i among all rows.
        temperature: positive; 0.2 for ViT and 1.0 for ResNet-50 in MoCo v3.

    Returns:
        Mean over the N queries, in nats, 0 or more. log(N) when all similarities are equal.
    """
    logits = (F.normalize(query, dim=1) / temperature) @ F.normalize(key, dim=1).T
    return F.cross_entropy(logits, torch.arange(len(query), device=query.device))
