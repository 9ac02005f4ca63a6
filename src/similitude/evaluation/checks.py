"""What every probe asks of its input. Shapes: N rows, M of them labeled, D features."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from similitude.errors import UserError


def check_features(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Float64 or float32 rows without gradient.

    Raises:
        UserError: If it is not a matrix, is empty, or holds a number that is not finite.
    """
    if x.ndim != 2 or 0 in x.shape:
        raise UserError(f"features must be a matrix [N, D] with rows, not {tuple(x.shape)}")
    x = x.detach()
    x = x if x.dtype == torch.float64 else x.float()
    if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x).all(1)).sum())
        raise UserError(
            f"{bad} of {len(x)} rows of features are not finite (NaN or infinite): the backbone "
            "has diverged; lower the learning rate"
        )
    return x


def check_labeled(
    x: Float[Tensor, "N D"], y: Int[Tensor, " N"]
) -> tuple[Float[Tensor, "M D"], Int[Tensor, " M"]]:
    """The rows that have a label, and their labels as int64 on the same device.

    Raises:
        UserError: If the lengths differ or no row has a label, or as ``check_features``.
    """
    if y.shape != x.shape[:1]:
        raise UserError(f"{len(x)} rows of features have labels of shape {tuple(y.shape)}")
    if y.is_floating_point():
        raise UserError(f"labels must be whole numbers, not {y.dtype}")
    y = y.to(x.device, torch.int64)
    known = y >= 0
    if not bool(known.any()):
        raise UserError("none of the rows has a label: a probe needs labeled samples")
    x = check_features(x)
    return (x, y) if bool(known.all()) else (x[known], y[known])
