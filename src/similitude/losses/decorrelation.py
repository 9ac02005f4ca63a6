"""Losses on the correlation of features instead of the similarity of samples.

N samples, P projection size. The batch's own statistics are part of the loss: over several
processes it needs the rows of all. Each of them then works out its ``share`` of the matrix alone,
as in ``contrastive``: the mean over processes is the loss of one.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from similitude.losses.precision import full_precision
from similitude.losses.tiles import WHOLE, Share, mean_in_tiles

_EPS = 1e-5  # added to the variance, as in BatchNorm


@full_precision
def barlow_twins(
    z1: Float[Tensor, "N P"],
    z2: Float[Tensor, "N P"],
    *,
    off_diagonal_weight: float,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """Redundancy reduction (Barlow Twins, arXiv:2103.03230, eq. 1 and 2).

    With C the correlation of every feature of view 1 with every feature of view 2::

        sum over i of (1 - C_ii)^2  +  weight * sum over i != j of C_ij^2

    Sums, not means: a weight is for one size P.

    Args:
        z1: projections of view 1, any scale and offset.
        z2: projections of view 2; row i of both is sample i.
        off_diagonal_weight: lambda; 0.0051 for P = 8192. 0 leaves the invariance alone.
        share: see above.

    Returns:
        0 or more. P where nothing is correlated, as for a constant code.
    """
    return _squared_distance(z1, z2, off_diagonal_weight, 0.0, share)


@full_precision
def barlow_twins_hsic(
    z1: Float[Tensor, "N P"],
    z2: Float[Tensor, "N P"],
    *,
    off_diagonal_weight: float,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """Barlow Twins with off-diagonal correlations drawn to -1 (arXiv:2104.13712).

    With C as in :func:`barlow_twins`::

        sum over i of (1 - C_ii)^2  +  weight * sum over i != j of (1 + C_ij)^2

    The authors come to it from the Hilbert-Schmidt independence criterion between the two views,
    which is a contrastive objective without negative samples.

    Args:
        z1: projections of view 1, any scale and offset.
        z2: projections of view 2; row i of both is sample i.
        off_diagonal_weight: lambda; 1/P in the authors' CIFAR-10 commands.
        share: see above.

    Returns:
        0 or more; never 0 for P > 2, because more than two features cannot all oppose each other.
        P + weight * P (P - 1) where nothing is correlated, as for a constant code.
    """
    return _squared_distance(z1, z2, off_diagonal_weight, -1.0, share)


def _squared_distance(
    z1: Float[Tensor, "N P"], z2: Float[Tensor, "N P"], weight: float, target: float, share: Share
) -> Float[Tensor, ""]:
    """Of the correlations from 1 on the diagonal, plus weight times that from ``target`` off it."""
    (n, p), features = z1.shape, torch.arange(z1.shape[1], device=z1.device)

    def loss(rows: Tensor, own: Tensor, z2: Tensor) -> Tensor:
        correlation = rows @ z2 / n
        own = own[:, None]
        invariance = (1 - correlation.gather(1, own)).square().sum()
        redundancy = (correlation - target).scatter(1, own, 0).square().sum()
        return (invariance + weight * redundancy) / len(rows)

    rows = [_standardized(z1).T, features]
    shared = [_standardized(z2)]
    return p * mean_in_tiles(loss, rows, shared, width=p, share=share)


def _standardized(z: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
    """Features with mean 0 and biased variance 1 over the batch: BatchNorm without affine part."""
    centered = z - z.mean(dim=0)
    return centered * (centered.square().mean(dim=0) + _EPS).rsqrt()
