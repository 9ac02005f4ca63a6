"""Losses between two sensors: which entry of one belongs to which entry of the other.

Letters: N samples, P numbers of a projection.

``valid`` are the samples that have an entry of both sensors: others are neither asked for nor among
the candidates. ``share`` is the part of the rows that a process takes, all of which have all rows.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from similitude.losses.precision import full_precision
from similitude.losses.tiles import WHOLE, Share, mean_in_tiles

_NEVER = -1e4  # the logit of what is no candidate: its share is 0 to the last bit


@full_precision
def matched_softmax(
    a: Float[Tensor, "N P"],
    b: Float[Tensor, "N P"],
    *,
    scale: Float[Tensor, ""],
    valid: Bool[Tensor, " N"] | None = None,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """Find b_i among all b from a_i, and a_i among all a from b_i (CLIP, 2021, Fig. 3).

    Args:
        a: projections of one sensor, unit norm.
        b: projections of the other; row i of both is sample i.
        scale: positive, the inverse of the temperature.
        valid: see above; all by default.
        share: see above.

    Returns:
        Mean over both directions and the valid samples, in nats, 0 or more. log N when all products
        are equal; 0 if no sample is valid.
    """
    index = torch.arange(len(a), device=a.device)
    valid = torch.ones_like(index, dtype=torch.bool) if valid is None else valid
    weight = _weight(valid, a)

    def loss(
        a: Tensor, index: Tensor, weight: Tensor, b: Tensor, scale: Tensor, valid: Tensor
    ) -> Tensor:
        logits = ((scale * a) @ b.T).masked_fill(~valid, _NEVER)
        return (F.cross_entropy(logits, index, reduction="none") * weight).mean()

    both = [
        mean_in_tiles(loss, [x, index, weight], [y, scale, valid], width=len(y), share=share)
        for x, y in ((a, b), (b, a))
    ]
    return torch.stack(both).mean()


@full_precision
def matched_sigmoid(
    a: Float[Tensor, "N P"],
    b: Float[Tensor, "N P"],
    *,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    valid: Bool[Tensor, " N"] | None = None,
    share: Share = WHOLE,
) -> Float[Tensor, ""]:
    """Tell for every pair whether it belongs together (SigLIP, Zhai et al. 2023, Alg. 1).

    Args:
        a: projections of one sensor, unit norm.
        b: projections of the other; row i of both is sample i.
        scale: positive.
        bias: of every pair; negative, as nearly all pairs do not belong together.
        valid: see above; all by default.
        share: see above.

    Returns:
        -log sigmoid(y (scale a . b + bias)), y = 1 of a pair and -1 of all others, summed over the
        candidates of a sample; mean over the valid samples. N log 2 when all logits are 0.
    """
    index = torch.arange(len(a), device=a.device)
    valid = torch.ones_like(index, dtype=torch.bool) if valid is None else valid

    def loss(
        a: Tensor,
        index: Tensor,
        weight: Tensor,
        b: Tensor,
        scale: Tensor,
        bias: Tensor,
        valid: Tensor,
    ) -> Tensor:
        logits = (scale * a) @ b.T + bias
        belongs = index[:, None] == torch.arange(len(b), device=b.device)
        each = F.softplus(torch.where(belongs, -logits, logits)) * valid
        return (each.sum(dim=1) * weight).mean()

    shared = [b, scale, bias, valid]
    return mean_in_tiles(loss, [a, index, _weight(valid, a)], shared, width=len(b), share=share)


def _weight(valid: Bool[Tensor, " N"], a: Float[Tensor, "N P"]) -> Float[Tensor, " N"]:
    """Of each row, as exact as a, so that the mean over all rows is that over the valid ones."""
    return valid.to(a) * (len(valid) / valid.sum().clamp_min(1).to(a))
