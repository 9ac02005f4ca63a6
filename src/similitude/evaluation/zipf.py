"""The fitness of Evolving Losses: how far sizes of clusters are from Zipf's law, without a label.

Piergiovanni, Angelova and Ryoo 2020, arXiv:2002.12177. Shapes: N samples, D features,
K clusters. Computed in float64.
"""

import math
import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from similitude.errors import UserError
from similitude.evaluation.checks import check_features

CLUSTERS = 10
STARTS: Any = 10  # of k-means; the stub of scikit-learn knows only "auto"


class ZipfFitness(NamedTuple):
    """What :func:`zipf_fitness` found."""

    value: float  # KL(p || q) in nats, 0..ln(H_{K,s}); less is better
    distance: float  # mean squared distance to the nearest centroid; sigma is 1 of it


def zipf_fitness(
    x: Float[Tensor, "N D"],
    *,
    clusters: int = CLUSTERS,
    exponent: float = 1.0,
    unit_length: bool = False,
    seed: int = 0,
) -> ZipfFitness:
    """The divergence of k-means clusters' sizes from Zipf's law.

    It cannot tell a collapse from clusters of equal size: both give 0.283 with 10 clusters. So it
    says something of a run only beside the run's verdict. And it depends on the scale of the
    features, since the width of a cluster is fixed: 2 sigma^2 = 1.

    Args:
        x: Features of unlabeled samples that were not trained on.
        clusters: K; the paper takes about the number of classes.
        exponent: s of the law.
        unit_length: Whether rows are scaled to length 1 first, which the paper does not do.
        seed: Of the start of k-means.

    Raises:
        UserError: There are fewer samples than clusters, fewer than 2 clusters, or a feature is not
            finite.
    """
    from sklearn.cluster import KMeans  # a second, which other runs save
    from sklearn.exceptions import ConvergenceWarning

    x = check_features(x).double()
    if clusters < 2 or len(x) < clusters:
        raise UserError(
            f"the fitness compares the sizes of {clusters} clusters of {len(x)} samples: give 2 "
            "clusters or more, and at least as many samples"
        )
    if unit_length:
        x = F.normalize(x, dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different rows than K
        means = KMeans(clusters, n_init=STARTS, random_state=seed).fit(x.numpy())
    centroids = torch.from_numpy(means.cluster_centers_)
    nearest = torch.cdist(x, centroids).square().amin(1).mean().item()
    return ZipfFitness(zipf_divergence(cluster_posterior(x, centroids), exponent), nearest)


def cluster_posterior(
    x: Float[Tensor, "N D"], centroids: Float[Tensor, "K D"]
) -> Float[Tensor, "N K"]:
    """p(c_i | x) = softmax_i(-||x - c_i||^2 / (2 sigma^2)) with 2 sigma^2 = 1; rows sum to 1."""
    return (-torch.cdist(x, centroids).square()).softmax(1)


def zipf_divergence(posterior: Float[Tensor, "N K"], exponent: float = 1.0) -> float:
    """KL(p || q) in nats; p(c_i) is the mean over the samples, sorted falling.

    The prior is q(i) = i^-s / H_{K,s}, of ranks. 0 where p follows it; at most ln(H_{K,s}), where
    one cluster has all. 0.283 where all are equal, with K = 10 and s = 1.
    """
    p = posterior.double().mean(0).sort(descending=True).values
    law = torch.arange(1, len(p) + 1, dtype=torch.float64) ** -exponent
    return max(0.0, (torch.xlogy(p, p) - p * law.log()).sum().item() + math.log(law.sum()))
