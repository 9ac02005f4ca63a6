"""Contrastive losses: find the right candidate among many.

N samples, P projection size, Q stored negatives, B rows of a memory bank, C candidates of one
sample: its own row and K = C - 1 others. All losses are in nats.

No matrix of similarities is ever whole in memory (see ``tiles``). Losses that compare a batch with
itself take a ``share``: of several processes that all have the whole batch, each works out its
share of the terms alone, and the mean over the processes of what they return, and of its gradients,
is that of one process.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from similitude.errors import UserError
from similitude.losses.precision import full_precision, unit
from similitude.losses.tiles import WHOLE, Share, mean_in_tiles


@full_precision
def nt_xent(
    z1: Float[Tensor, "N P"], z2: Float[Tensor, "N P"], *, temperature: float, share: Share = WHOLE
) -> Float[Tensor, ""]:
    """Normalized temperature-scaled cross-entropy (SimCLR, arXiv:2002.05709, eq. 1), in nats.

    Each of the 2N projections must pick its other view among the 2N - 1 others. The authors' code
    returns the sum of the two directions, twice the paper's mean; this is the paper's.

    Args:
        z1: projections of view 1, any norm.
        z2: projections of view 2, any norm; row i of both is sample i.
        temperature: positive; the paper uses 0.1 (ImageNet) and 0.5 (CIFAR-10).
        share: see above.

    Returns:
        Mean over the 2N projections, 0 or more. log(2N - 1) when all similarities are equal.
    """
    z = unit(torch.cat([z1, z2]))
    return _find_other_view(z, z, temperature, share)


@full_precision
def nt_xent_with_queue(
    z1: Float[Tensor, "N P"],
    z2: Float[Tensor, "N P"],
    negatives: Float[Tensor, "Q P"],
    *,
    temperature: float,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """NT-Xent with stored keys as further wrong candidates (SimCLR v2, arXiv:2006.10029, Sec. 2).

    Args:
        z1: projections of view 1, any norm.
        z2: projections of view 2, any norm; row i of both is sample i.
        negatives: unit norm; must not come from these samples.
        temperature: positive; 0.1 in the paper.
        share: see above.

    Returns:
        Mean over the 2N projections, in nats, 0 or more. log(2N - 1 + Q) when all similarities are
        equal; ``nt_xent`` where Q is 0.
    """
    z = unit(torch.cat([z1, z2]))
    return _find_other_view(z, torch.cat([z, negatives]), temperature, share)


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

    def loss(query: Tensor, key: Tensor, negatives: Tensor) -> Tensor:
        query = query / temperature
        positive = (query * key).sum(dim=1)
        return -F.logsigmoid(positive - (query @ negatives.T).logsumexp(dim=1)).mean()

    return mean_in_tiles(loss, [query, key], [negatives], width=len(negatives))


@full_precision
def in_batch_info_nce(
    query: Float[Tensor, "N P"],
    key: Float[Tensor, "N P"],
    *,
    temperature: float,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """InfoNCE whose candidates are the keys of the batch (MoCo v3, arXiv:2104.02057, Alg. 1).

    MoCo v3 multiplies by ``2 * temperature``, which keeps the gradient's size when the temperature
    changes; here that factor is left to the method.

    Args:
        query: predictions, any norm.
        key: target projections, any norm; row i is the positive of query i among all rows.
        temperature: positive; 0.2 for ViT and 1.0 for ResNet-50 in MoCo v3.
        share: see above.

    Returns:
        Mean over the N queries, in nats, 0 or more. log(N) when all similarities are equal.
    """
    index = torch.arange(len(query), device=query.device)
    query, key = F.normalize(query, dim=1), F.normalize(key, dim=1)
    return _find_row(query, key, index, temperature, share)


@full_precision
def invariant_spread(
    z1: Float[Tensor, "N P"],
    z2: Float[Tensor, "N P"],
    *,
    temperature: float,
    negative_weight: float = 1.0,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """Views of an image alike, other images spread out (InvaSpread, arXiv:1904.03436, eq. 3 to 7).

    With P(j | i) = exp(z_i . z_j / t) / sum over k != i of exp(z_i . z_k / t): the mean over the 2N
    projections i of -log P(other view | i) - sum over the 2N - 2 others of log(1 - P(j | i)). As in
    the authors' code, and unlike the paper's equations, the denominator runs over both views, and
    z_j carries no gradient: this is the one loss that detaches, because a projection plays both
    roles.

    Args:
        z1: projections of view 1, unit norm.
        z2: projections of view 2, unit norm; row i of both is sample i.
        temperature: positive; 0.1 in the paper.
        negative_weight: 1 or more; factor of the second term, and of the other images in the
            denominator.
        share: see above.

    Raises:
        UserError: the weight is below 1, where 1 - P can be negative.

    Returns:
        Mean over the 2N projections, 0 or more. With M = 2N - 1 candidates and weight 1 it is
        log M + (M - 1) log(M / (M - 1)) when all similarities are equal.
    """
    if negative_weight < 1:
        raise UserError(f"negative_weight is {negative_weight}; give 1 or more")
    z = torch.cat([z1, z2])
    own_index = torch.arange(len(z), device=z.device)

    def loss(z: Tensor, own_index: Tensor, right: Tensor, candidates: Tensor) -> Tensor:
        anchor = torch.arange(len(z), device=z.device)
        logits = (z / temperature) @ candidates.T
        logits[anchor, own_index] = -torch.inf  # a projection is not its own candidate
        positive = logits[anchor, right]
        weighted = (logits + math.log(negative_weight)).index_put((anchor, right), positive)
        log_sum = weighted.logsumexp(dim=1)
        # log(1 - P) loses its digits where P is close to 1. Only the largest candidate can be above
        # 1/2; for it the others are summed instead, with what its own weight leaves above 1.
        top = weighted.argmax(dim=1)
        left = math.log(negative_weight - 1) if negative_weight > 1 else -math.inf
        top_left = torch.where(top == right, positive, logits[anchor, top] + left)
        spread_of_top = weighted.index_put((anchor, top), top_left).logsumexp(dim=1) - log_sum
        elsewhere = torch.zeros_like(logits, dtype=torch.bool)
        elsewhere[anchor, top] = elsewhere[anchor, right] = True
        p = (logits - log_sum[:, None]).masked_fill(elsewhere, -torch.inf).exp()
        spread = torch.log1p(-p).sum(dim=1) + spread_of_top.where(top != right, 0)
        return (log_sum - positive - negative_weight * spread).mean()

    rows, shared = [z, own_index, own_index.roll(len(z1))], [z.detach()]
    return mean_in_tiles(loss, rows, shared, width=len(z), share=share)


@full_precision
def instance_nce(
    features: Float[Tensor, "N P"],
    bank_rows: Float[Tensor, "N C P"],
    *,
    temperature: float,
    normalizer: float | Float[Tensor, ""],
    num_samples: int,
    weight: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, ""]:
    """Noise-contrastive estimation of the instance's probability (InstDisc, arXiv:1805.01978).

    Tell the sample's own row of the bank from K noise rows drawn uniformly (eq. 4 to 7, with m = K
    and noise probability 1 / n), given P = exp(row . feature / t) / Z. As in the authors' code both
    denominators hold 1e-7 besides.

    Args:
        features: unit norm.
        bank_rows: column 0 is the sample's own row, the others its K noise rows, 1 or more.
        temperature: positive; 0.07 in the paper.
        normalizer: Z, a constant: n times the mean of exp(row . feature / t) over a first batch.
        num_samples: n, the number of rows of the bank.
        weight: of each sample in the mean; 1 by default.

    Returns:
        The sum over the 1 + K rows, mean over the N samples; 0 or more. It is
        (1 + K) log(1 + K) - K log(K), but for the 1e-7, when every row has P = 1 / n.
    """
    noise = (bank_rows.shape[1] - 1) / num_samples
    log_z = normalizer.log() if isinstance(normalizer, Tensor) else math.log(normalizer)
    log_p = _candidates(features, bank_rows, temperature) - log_z
    # log(P + noise), without exponentials of a large logit
    log_either = torch.logaddexp(log_p, log_p.new_full((), math.log(noise + 1e-7)))
    is_data = log_p[:, 0] - log_either[:, 0]
    is_noise = (math.log(noise) - log_either[:, 1:]).sum(dim=1)
    return -_mean(is_data + is_noise, weight)


@full_precision
def instance_normalizer(
    features: Float[Tensor, "N P"],
    bank_rows: Float[Tensor, "N C P"],
    *,
    temperature: float,
    num_samples: int,
    weight: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, ""]:
    """The estimate of Z for :func:`instance_nce` (InstDisc, arXiv:1805.01978, eq. 8).

    Args:
        features: of a first batch, unit norm.
        bank_rows: as for the loss.
        temperature: as for the loss.
        num_samples: n, the number of rows of the bank.
        weight: as for the loss.

    Returns:
        n times the mean of exp(row . feature / t).
    """
    each = _candidates(features, bank_rows, temperature).exp()
    return num_samples * (each.mean() if weight is None else _mean(each.mean(dim=1), weight))


@full_precision
def instance_softmax(
    features: Float[Tensor, "N P"],
    bank: Float[Tensor, "B P"],
    index: Int[Tensor, " N"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Which of all B samples is it? (InstDisc, arXiv:1805.01978, eq. 2 and 3), in nats.

    Args:
        features: unit norm.
        bank: one row per sample of the data set.
        index: row of the bank that belongs to each feature.
        temperature: positive; 0.07 in the paper, 0.1 in the authors' commands for CIFAR-10.

    Returns:
        Mean over the N samples, 0 or more. log(B) when all similarities are equal.
    """
    return _find_row(features, bank, index, temperature)


@full_precision
def bank_softmax(
    features: Float[Tensor, "N P"],
    bank_rows: Float[Tensor, "N C P"],
    *,
    temperature: float,
    weight: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE whose keys are rows of a memory bank (MoCo, arXiv:1911.05722, Fig. 2b), in nats.

    Args:
        features: unit norm.
        bank_rows: column 0 is the sample's own row, the others its K negatives.
        temperature: positive; 0.07 in MoCo v1 and CMC.
        weight: of each sample in the mean; 1 by default.

    Returns:
        Mean over the N samples, 0 or more. log(1 + K) when all similarities are equal.
    """
    logits = _candidates(features, bank_rows, temperature)
    return _mean(logits.logsumexp(dim=1) - logits[:, 0], weight)


def _mean(x: Float[Tensor, " N"], weight: Float[Tensor, " N"] | None) -> Float[Tensor, ""]:
    return x.mean() if weight is None else (weight * x).mean()


@torch.no_grad()
@full_precision
def repulsion(
    query: Float[Tensor, "N P"],
    candidates: Float[Tensor, "C P"],
    *,
    temperature: float,
    left_out: Sequence[int] = (),
    most: int = 32,
) -> Float[Tensor, "M P"]:
    """What InfoNCE adds to the pull of the positive: its extra gradient (arXiv:2203.16262, Sec. 4).

    The negative gradient for a unit query goes along Z_b - sum_i w_i Z_i, where Z_b is the positive
    and w the softmax of the query's similarities with the negatives, over the temperature. This is
    the second part, without a gradient of its own: a mean of the negatives, turned around.

    Args:
        query: any norm.
        candidates: any norm; all are negatives of every query but those left out.
        temperature: positive.
        left_out: for each k in it, candidate k + i is no negative of query i: the query itself, its
            positive.
        most: M, so many of the first queries are enough for what is measured of them.

    Returns:
        Rows of length 0..1; minus the one negative where there is a single one.
    """
    query, candidates = F.normalize(query[:most], dim=1), F.normalize(candidates, dim=1)
    logits = query @ candidates.T / temperature
    rows = torch.arange(len(query), device=query.device)
    for first in left_out:
        logits[rows, first + rows] = -torch.inf
    return -(logits.softmax(dim=1) @ candidates)


def _candidates(
    features: Float[Tensor, "N P"], rows: Float[Tensor, "N C P"], temperature: float
) -> Float[Tensor, "N C"]:
    """Similarity of each feature with its own C rows, over the temperature."""
    return torch.einsum("np,ncp->nc", features / temperature, rows)


def _find_other_view(
    z: Float[Tensor, "M P"], candidates: Float[Tensor, "C P"], temperature: float, share: Share
) -> Float[Tensor, ""]:
    """Cross-entropy of finding z's other view; the first M = 2N candidates are z itself."""
    own_index = torch.arange(len(z), device=z.device)
    positive_index = own_index.roll(len(z) // 2)

    def loss(z: Tensor, own_index: Tensor, positive_index: Tensor, candidates: Tensor) -> Tensor:
        logits = (z / temperature) @ candidates.T
        logits.scatter_(1, own_index[:, None], -torch.inf)  # nobody is its own candidate
        return F.cross_entropy(logits, positive_index)

    rows, width = [z, own_index, positive_index], len(candidates)
    return mean_in_tiles(loss, rows, [candidates], width=width, share=share)


def _find_row(
    query: Float[Tensor, "N P"],
    candidates: Float[Tensor, "C P"],
    index: Int[Tensor, " N"],
    temperature: float,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """Cross-entropy of finding each query's row among all candidates."""

    def loss(query: Tensor, index: Tensor, candidates: Tensor) -> Tensor:
        return F.cross_entropy((query / temperature) @ candidates.T, index)

    width = len(candidates)
    return mean_in_tiles(loss, [query, index], [candidates], width=width, share=share)
