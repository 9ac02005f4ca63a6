"""How features fill their space: the gauges that show collapse without a label.

Shapes: N rows, D features. All functions are pure and work in float64; rows beyond a stated number
are left out by a fixed rule (a hash of the row number, so no period of the data can match it).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from similitude.errors import UserError
from similitude.evaluation.checks import check_features
from similitude.evaluation.draws import random_keys

MAX_ROWS = 16_384  # for std, rank and spectrum; RankMe is stable from some 10,000 rows on
MAX_PAIR_ROWS = 4_096  # for uniformity: 8 million pairs
_TILE = 1_024


def feature_std(x: Float[Tensor, "N D"]) -> float:
    """Mean over the channels of the std over the rows, after L2-normalizing each row.

    About 1/sqrt(D) when the directions fill the space, 0 when all rows are equal (SimSiam, Chen and
    He 2021, section 4.1 and figure 2).

    Raises:
        UserError: If there are fewer than two rows.
    """
    return F.normalize(some_rows(x, MAX_ROWS), dim=1).std(dim=0).mean().item()


def effective_rank(x: Float[Tensor, "N D"]) -> float:
    """RankMe: exp of the entropy of the normalized singular values; 1..min(N, D).

    Garrido et al. 2023, equation 1: p = sigma / sum(sigma) + 1e-7, of the features as they are, not
    centered.
    """
    return entropy_rank(_singular_values(some_rows(x, MAX_ROWS)))


def entropy_rank(values: Float[Tensor, " R"]) -> float:
    """How many of these values of 0 or more are in use: exp of their entropy, 1..R."""
    total = values.sum()
    if total == 0:
        return 1.0
    p = values / total + 1e-7
    return math.exp(-(p * p.log()).sum().item())


def spectrum(x: Float[Tensor, "N D"]) -> Float[Tensor, " D"]:
    """Singular values of the centered features, largest first, divided by sqrt(N).

    So they are the standard deviations along the principal axes and do not depend on N. Values
    below 1e-8 of the largest are rounding noise. Always D numbers; zero beyond the rank.
    """
    rows = some_rows(x, MAX_ROWS)
    sigma = _singular_values(rows - rows.mean(0)) / math.sqrt(len(rows))
    return F.pad(sigma, (0, rows.shape[1] - len(sigma)))


def alignment(h1: Float[Tensor, "N D"], h2: Float[Tensor, "N D"]) -> float:
    """Mean squared distance of two views of the same samples on the unit sphere, 0..4; 0 is best.

    Wang and Isola 2020, equation 5 with alpha = 2.
    """
    if h1.shape != h2.shape:
        raise UserError(
            f"alignment compares two views row by row; the shapes are {tuple(h1.shape)} and "
            f"{tuple(h2.shape)}"
        )
    u1, u2 = (F.normalize(check_features(h).double(), dim=1) for h in (h1, h2))
    return (u1 - u2).square().sum(1).mean().item()


def uniformity(x: Float[Tensor, "N D"], t: float = 2.0) -> float:
    """Log of the mean of exp(-t * squared distance) over all pairs on the unit sphere.

    0 when all rows are equal; about -2t when the directions fill a space of many dimensions (Wang
    and Isola 2020, equation 6).
    """
    u = F.normalize(some_rows(x, MAX_PAIR_ROWS), dim=1)
    parts = []
    for i in range(0, len(u), _TILE):
        tile = (2 * t) * (u[i : i + _TILE] @ u[i:].T - 1)
        above = torch.ones_like(tile, dtype=torch.bool).triu(1)
        parts.append(tile[above].logsumexp(0) if above.any() else tile.new_full((), -math.inf))
    pairs = len(u) * (len(u) - 1) / 2
    return torch.stack(parts).logsumexp(0).item() - math.log(pairs)


def some_rows(x: Float[Tensor, "N D"], most: int) -> Float[Tensor, "M D"]:
    """At most so many of the rows, in float64.

    Raises:
        UserError: If there are fewer than two rows, or as ``check_features``.
    """
    x = check_features(x)
    if len(x) < 2:
        raise UserError("the geometry of features needs at least two rows")
    if len(x) > most:
        keys = random_keys(0, 0, len(x), "geometry")
        x = x[keys.argsort(stable=True)[:most].sort().values.to(x.device)]
    return x.double()


def _singular_values(x: Float[Tensor, "N D"]) -> Float[Tensor, " R"]:
    """By the smaller Gram matrix: many times faster than an SVD, exact to 1e-8 of the largest."""
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)


def linear_cka(x: Float[Tensor, "N D"], y: Float[Tensor, "N E"]) -> float:
    """How alike two kinds of features of the same rows are: 1 for a rotation and scale, 0 for none.

    Kornblith et al. 2019, equation 4 with a linear kernel: |Y'X|^2 / (|X'X| |Y'Y|), Frobenius
    norms, columns centered.

    Raises:
        UserError: If there are fewer than two rows.
    """
    x, y = (rows - rows.mean(dim=0) for rows in (some_rows(x, MAX_ROWS), some_rows(y, MAX_ROWS)))
    norm = torch.linalg.matrix_norm
    own = norm(x.T @ x) * norm(y.T @ y)
    return (norm(y.T @ x) ** 2 / own.clamp_min(torch.finfo(x.dtype).tiny)).item()
