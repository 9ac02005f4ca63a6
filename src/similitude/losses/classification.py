"""Classification losses: every sample of the data set is a class of its own."""

from jaxtyping import Float, Int
from torch import Tensor

from similitude.losses.precision import full_precision
from similitude.losses.tiles import mean_in_tiles


@full_precision
def index_cross_entropy(
    features: Float[Tensor, "N D"],
    weights: Float[Tensor, "M D"],
    index: Int[Tensor, " N"],
    *,
    label_smoothing: float,
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Which of all M samples is it, by a linear classifier? (DIET, arXiv:2302.10260), in nats.

    Cross-entropy of the logits l_j = features . w_j / temperature with smoothed targets, which give
    1 - label_smoothing + label_smoothing / M to the sample's own class and label_smoothing / M to
    each other one: logsumexp(l) - (1 - label_smoothing) l_own - label_smoothing mean(l). The N x M
    matrix of logits is never whole in memory.

    Args:
        features: any norm.
        weights: the classifier, one row for each sample of the data set.
        index: row of ``weights`` that belongs to each feature.
        label_smoothing: 0 to 1, share of the target that all M classes have in equal parts; 0.8 in
            DIET, 0.3 in DIET-CP.
        temperature: positive.

    Returns:
        Mean over the N features; log(M) when all logits are equal, whatever the smoothing. Never
        below the entropy of the smoothed target, which is 0 without smoothing.
    """

    def loss(features: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        logits = (features / temperature) @ weights.T
        own = logits.gather(1, index[:, None]).squeeze(1)
        smoothed = (1 - label_smoothing) * own + label_smoothing * logits.mean(dim=1)
        return (logits.logsumexp(dim=1) - smoothed).mean()

    return mean_in_tiles(loss, [features, index], [weights], width=len(weights))
