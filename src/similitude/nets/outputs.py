"""What is measured of the outputs that a loss compares. N samples, M of them measured, P numbers.

After Zhang et al., ICLR 2022 (arXiv:2203.16262): a unit output is Z = o + r, its center o = E[Z]
and a residual r, and outputs collapse as the center's share of them goes to 1. The negative
gradient at an output is a pull to the same output of the other view, which alone would collapse,
and an *extra gradient* G, which holds outputs apart by what its center and residuals do to those
of Z.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from similitude.devices import widest
from similitude.distributed import mean_over_processes, world_size

_TINY = 1e-12


@torch.no_grad()
def output_std(z: Float[Tensor, "N P"]) -> Float[Tensor, ""]:
    """How far the rows spread over the sphere (SimSiam, arXiv:2011.10566, Sec. 4.1), detached.

    Returns:
        Standard deviation over the whole batch (of all processes) of the unit rows, mean over
        channels, times sqrt(P): about 1 for directions spread evenly, 0 when all rows point the
        same way (collapsed).
    """
    return output_readings(z)["projection_std"]


@torch.no_grad()
def output_readings(
    z: Float[Tensor, "N P"], extra: Float[Tensor, "M P"] | None = None
) -> dict[str, Tensor]:
    """How the outputs lie on the sphere, and what the extra gradient does to them; detached.

    Args:
        z: what the loss compares, any norm.
        extra: G for the first M rows, as :func:`prediction_gap` or :func:`losses.repulsion` gives
            it; None where the loss has none.

    Returns:
        Over the whole batch, of all processes:

        - ``projection_std``: see :func:`output_std`.
        - ``center_share``: |o|^2 / E|Z|^2, 0..1, and 1 minus the residuals' share: 1 when all rows
          point the same way, 1 / N for N unrelated ones.

        With ``extra``, whose center is o_e and whose residuals are r_e, over its rows:

        - ``extra_center_share``: |o_e|^2 / E|G|^2, 0..1.
        - ``extra_center_cosine``: of o_e and o, -1..1; below 0 it takes the center away.
        - ``extra_residual_cosine``: of all r_e and all r, E[r_e . r] over their lengths, -1..1;
          below 0 it takes apart what is correlated.
    """
    unit = widest(F.normalize(z.float(), dim=1))  # exact enough for a difference of squares
    parts = [unit, unit.square()]
    if extra is not None:
        some, extra = unit[: len(extra)], widest(extra)
        products = (some * extra, some.square(), extra.square())
        parts += [some, extra, *(product.sum(dim=1, keepdim=True) for product in products)]
    sizes = [part.shape[1] for part in parts]
    # each process has as many rows
    means = mean_over_processes(torch.cat([part.mean(dim=0) for part in parts]))
    center, square, *others = means.split(sizes)
    count = len(z) * world_size()
    variance = (square - center.square()).clamp(min=0) * (count / max(1, count - 1))
    readings = {
        "projection_std": variance.sqrt().mean() * z.shape[1] ** 0.5,
        "center_share": center.square().sum(),
    }
    if others:
        o, o_e, together, length, length_e = others
        residuals = (length - o.dot(o)).clamp(min=0) * (length_e - o_e.dot(o_e)).clamp(min=0)
        readings |= {
            "extra_center_share": (o_e.dot(o_e) / length_e.clamp(min=_TINY))[0],
            "extra_center_cosine": o_e.dot(o) / (o_e.norm() * o.norm()).clamp(min=_TINY),
            "extra_residual_cosine": ((together - o_e.dot(o)) / residuals.sqrt().clamp(min=_TINY))[
                0
            ],
        }
    return {name: value.float() for name, value in readings.items()}


@torch.no_grad()
def prediction_gap(z: Float[Tensor, "N P"], p: Float[Tensor, "N P"]) -> Tensor | None:
    """The extra gradient of a predictor, G = Z - P (arXiv:2203.16262, Sec. 4), unit rows.

    A loss that pulls a prediction to the other view's Z_b pulls it to P_b + G; without a predictor
    there is P_b alone, which collapses. Both are of the same view.

    Args:
        z: projections of the online network, any norm.
        p: predictions from them, any norm.

    Returns:
        None where the predictor is the identity: there is no gap.
    """
    if p is z:
        return None
    return F.normalize(z.float(), dim=1) - F.normalize(p.float(), dim=1)


def worst_readings(outputs: Sequence[Float[Tensor, "N _"]]) -> dict[str, Tensor]:
    """Of the outputs of several networks, each reading of the one that is nearest to collapse."""
    readings = [output_readings(z) for z in outputs]
    return {
        "projection_std": torch.stack([r["projection_std"] for r in readings]).min(),
        "center_share": torch.stack([r["center_share"] for r in readings]).max(),
    }
