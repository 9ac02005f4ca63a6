"""Losses that pull a prediction to its target. N samples, P projection size.

Gradients flow into both arguments: detach the target at the call, where a reader sees it. The
stop-gradient belongs to the method, not to the loss.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from similitude.losses.precision import full_precision, unit


@full_precision
def negative_cosine(p: Float[Tensor, "N P"], z: Float[Tensor, "N P"]) -> Float[Tensor, ""]:
    """Negative cosine similarity (SimSiam, arXiv:2011.10566, eq. 1).

    Args:
        p: predictions of one view, any norm.
        z: projections of the other view, any norm.

    Returns:
        Mean over the N samples, in [-1, 1]; -1 is perfect alignment.
    """
    return -F.cosine_similarity(p, z, dim=1).mean()


@full_precision
def normalized_regression(p: Float[Tensor, "N P"], z: Float[Tensor, "N P"]) -> Float[Tensor, ""]:
    """Squared distance of unit vectors (BYOL, arXiv:2006.07733, eq. 2).

    Args:
        p: predictions of one view, any norm.
        z: target projections of the other view, any norm.

    Returns:
        Mean over the N samples, in [0, 4]; 0 is perfect alignment. Equals 2 + 2 negative_cosine
        except for rows shorter than 1e-6, which both papers' codes clamp, each in its way.
    """
    return (unit(p) - unit(z)).square().sum(dim=1).mean()


@full_precision
def channel_cross_entropy(p: Float[Tensor, "N P"], z: Float[Tensor, "N P"]) -> Float[Tensor, ""]:
    """Cross-entropy with softmax over the channels (SimSiam, arXiv:2011.10566, Sec. 4.5), in nats.

    - sum over c of softmax(z)_c log softmax(p)_c.

    Args:
        p: predictions of one view, any scale.
        z: projections of the other view, any scale.

    Returns:
        Mean over the N samples, at least the entropy of softmax(z). log(P) when all channels of p
        are equal.
    """
    return F.cross_entropy(p, z.softmax(dim=1))
