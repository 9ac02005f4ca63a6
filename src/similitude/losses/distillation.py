"""Losses that learn the soft classes another network gives.

N samples, K classes, V views, G views of the target network, P numbers before the last layer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from similitude.losses.precision import full_precision
from similitude.losses.tiles import mean_in_tiles
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
    """Cross-entropy to a centered and sharpened target (DINO, arXiv:2104.14294, eqs. 1 and 3).

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
def self_distillation_before_logits(
    online: Sequence[Float[Tensor, "N P"]],
    target: Sequence[Float[Tensor, "N P"]],
    weight: Float[Tensor, "K P"],
    target_weight: Float[Tensor, "K P"],
    center: Float[Tensor, " K"],
    *,
    online_temperature: float,
    target_temperature: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """:func:`self_distillation` from the inputs of the last layers, in the memory of some samples.

    All logits of all views would not fit: ten views of 1,024 images to 65,536 classes take 2.7 GB,
    and as much again for every step between them and the loss.

    Args:
        online: inputs of the last layer, of V views.
        target: those of the target network, of the first G views; detach them at the call.
        weight: of the last layer, which has no bias.
        target_weight: of the target's; detach it at the call.
        center: subtracted from the target's logits, before they are divided by the temperature.
        online_temperature: positive; 0.1 in DINO.
        target_temperature: positive and lower, which sharpens; 0.04 to 0.07 in DINO.

    Returns:
        The loss, and the mean entropy of the G targets in nats, without a gradient: 0 where each
        target is one class, ln K where it is all classes alike.

    Raises:
        UserError: fewer than two views.
    """

    def loss(*inputs: Tensor) -> Tensor:
        *rows, weight, target_weight, center = inputs
        # one product for all views: each reads the whole weight
        logits = torch.cat(rows[: len(online)]) @ weight.T / online_temperature
        target_logits = torch.cat(rows[len(online) :]) @ target_weight.T
        log_targets = ((target_logits - center) / target_temperature).log_softmax(dim=1)
        targets = log_targets.exp()
        loss = mean_cross_entropy(logits.chunk(len(online)), targets.chunk(len(target)))
        return torch.stack([loss, -(targets * log_targets).sum(dim=1).mean()])

    width = (len(online) + len(target)) * len(weight)
    shared = [weight, target_weight, center]
    both = mean_in_tiles(loss, [*online, *target], shared, width=width)
    return both[0], both[1].detach()


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
