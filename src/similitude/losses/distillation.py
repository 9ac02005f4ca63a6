"""Losses that learn the soft classes another network gives.

N samples, K classes, V views, G views of the target network.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from similitude.losses.precision import full_precision
from similitude.losses.views import mean_cross_entropy


@full_precision
def self_distillation(
    online_logits: Sequence[Float[Tensor, "N K"]],
    target_logits: Sequence[Float[Tensor, "N K"]],
    center: Float[Tensor, " K"],
    *,
    online_temperature: float,
    target_temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy to a centred and sharpened target (DINO, arXiv:2104.14294, eqs. 1 and 3).

    Args:
        online_logits: of V views; row i of all views is sample i.
        target_logits: of the first G views, from the target network; detach them at the call.
        center: subtracted from the target's logits, before they are divided by the temperature.
        online_temperature: positive; 0.1 in DINO.
        target_temperature: positive and lower, which sharpens; 0.04 to 0.07 in DINO.

    Returns:
        Cross-entropy in nats, mean over samples, the G target views and the V - 1 others of each:
        the target's entropy plus its divergence from the online network. ln K when all logits are
        equal.

    Raises:
        UserError: fewer than two views.
    """
    targets = [((t - center) / target_temperature).softmax(dim=1) for t in target_logits]
    return mean_cross_entropy([s / online_temperature for s in online_logits], targets)


@full_precision
def distill_logits(
    teacher_logits: Float[Tensor, "N K"],
    student_logits: Float[Tensor, "N K"],
    *,
    temperature: float,
    scale_by_temperature_squared: bool,
) -> Float[Tensor, ""]:
    """Cross-entropy to a teacher's classes (SimCLR v2, arXiv:2006.10029, eq. 2), in nats.

    With t the temperature: -sum over k of softmax(teacher / t)_k log softmax(student / t)_k. The
    paper leaves the loss so; the authors' notebook multiplies it by t^2, which keeps the size of
    the gradient when t changes.

    Args:
        teacher_logits: row i of both is image i; detach them at the call.
        student_logits: any scale.
        temperature: positive, of both; 0.1 in the paper for a student as large as its teacher, 1
            for a smaller one.
        scale_by_temperature_squared: multiply by t^2.

    Returns:
        Mean over the N images, at least the entropy of the teacher's classes (times t^2). log(K)
        (times t^2) when all student logits are equal.
    """
    target = (teacher_logits / temperature).softmax(dim=1)
    loss = F.cross_entropy(student_logits / temperature, target)
    return temperature**2 * loss if scale_by_temperature_squared else loss
