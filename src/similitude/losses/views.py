"""What SwAV and DINO share: every view predicts the soft code of every other assigned view.

N samples, K prototypes, V views, G views with a target (the first ones).
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from similitude.errors import UserError


def mean_cross_entropy(logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Cross-entropy in nats, mean over samples and over all pairs (target, other view).

    Args:
        logits: V of [N, K]; view v comes from the same samples as target v.
        targets: G of [N, K], 1 <= G <= V; rows sum to 1.

    Raises:
        UserError: a single view has no other to predict, or there are more targets than views.
    """
    if len(logits) < 2 or not 1 <= len(targets) <= len(logits):
        raise UserError(
            f"{len(logits)} views and {len(targets)} targets: a loss over pairs of views needs at "
            "least two views, and targets for the first of them"
        )
    total = logits[0].new_zeros(())
    for v, view in enumerate(logits):
        others = [target for g, target in enumerate(targets) if g != v]
        if others:
            total = total - (sum(others) * F.log_softmax(view, dim=1)).sum()
    pairs = len(targets) * (len(logits) - 1)
    return total / (pairs * len(logits[0]))
