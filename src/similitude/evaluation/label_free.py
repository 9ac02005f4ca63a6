"""Numbers that are said to go with accuracy, and need no label.

Each has its paper. None is a score: they compare networks of one data set, and benchmarks/
label_free.py tells how well on runs of your own. Shapes: N rows, D features, V views, K clusters.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from similitude.errors import UserError
from similitude.evaluation.checks import check_features
from similitude.evaluation.draws import random_keys
from similitude.evaluation.geometry import (
    MAX_PAIR_ROWS,
    MAX_ROWS,
    effective_rank,
    entropy_rank,
    some_rows,
    spectrum,
    uniformity,
)

# As many as the online monitor watches: all numbers of a row take seconds.
MAX_NUMBERS_ROWS = 2_500
# The first eigenvalues are the mean's and of a few coarse properties, the last ones are noise.
POWER_LAW_RANKS = (3, 100)
_ROUNDING = 1e-7  # of the largest singular value
_LARGEST_RATIOS = 0.1  # of TwoNN's, left out


def label_free_numbers(x: Float[Tensor, "N D"]) -> dict[str, float]:
    """Those that features of images without views give in seconds, by name.

    Of at most 2,500 rows, chosen by a fixed rule. What such features leave undefined is left out.
    """
    x = some_rows(x, MAX_NUMBERS_ROWS)
    found = {
        "effective_rank": effective_rank(x),
        "alpha_req": alpha_req(x),
        "uniformity": uniformity(x),
        "intrinsic_dimension": intrinsic_dimension(x),
        "cluster_learnability": cluster_learnability(x),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def alpha_req(x: Float[Tensor, "N D"], ranks: tuple[int, int] = POWER_LAW_RANKS) -> float:
    """alpha-ReQ: the exponent with which eigenvalues of the covariance fall, 0 or more.

    Agrawal et al. 2022 (NeurIPS): lambda_i ~ i^-alpha, and features near alpha = 1 generalize best:
    above, few directions count; below, noise does. Least squares of log lambda_i on log i.

    Args:
        x: features.
        ranks: first and last i of the fit, from 1 on; the last one that is above rounding noise at
            most.

    Returns:
        NaN where fewer than three eigenvalues can be fitted.
    """
    sigma = spectrum(x)
    count = int((sigma > _ROUNDING * sigma[0]).sum())
    first, last = ranks[0], min(ranks[1], count)
    if last - first < 2:
        return math.nan
    i = torch.arange(first, last + 1, dtype=torch.float64).log()
    values = 2 * sigma[first - 1 : last].cpu().log()
    i, values = i - i.mean(), values - values.mean()
    return float(-(i @ values) / (i @ i))


def lidar(h: Float[Tensor, "V N D"], delta: float = 1e-4) -> float:
    """LiDAR: the effective rank of what tells samples apart, where views of a sample differ little.

    Thilak et al. 2023 (arXiv:2312.04000), their definition: with e_x the mean over the views of a
    sample and e that over all, S_b = E (e_x - e)(e_x - e)', S_w = E (h - e_x)(h - e_x)' + delta I,
    and the rank as in RankMe of the eigenvalues of S_w^-1/2 S_b S_w^-1/2. They take 50 views of
    1,000 samples; there are at most N - 1 directions.

    Args:
        h: features of views.
        delta: keeps S_w away from singular; theirs.

    Returns:
        From 1 to min(N - 1, D).

    Raises:
        UserError: fewer than two views or samples, or as ``check_features``.
    """
    if h.ndim != 3 or len(h) < 2 or h.shape[1] < 2:
        raise UserError(
            "LiDAR compares views [V, N, D] of the same samples, at least two of each; the shape "
            f"is {tuple(h.shape)}"
        )
    views = check_features(h.flatten(0, 1)).double().view(h.shape)
    means = views.mean(0)
    apart = means - means.mean(0)
    noise = (views - means).flatten(0, 1)
    within = noise.T @ noise / len(noise) + delta * torch.eye(h.shape[2], dtype=torch.float64)
    # the eigenvalues are those of the same rows where the noise is white
    values, directions = torch.linalg.eigh(within)
    white = apart @ directions / values.sqrt()
    gram = white.T @ white if white.shape[0] >= white.shape[1] else white @ white.T
    return entropy_rank(torch.linalg.eigvalsh(gram).clamp_min(0))


def intrinsic_dimension(x: Float[Tensor, "N D"]) -> float:
    """TwoNN: how many numbers tell rows apart from their neighbors, 0 or more; the ID of CLID.

    Facco et al. 2017 (Scientific Reports 7): with mu the second neighbor's distance over the
    first's, sorted, and F its rank over N, -log(1 - F) = d log mu; d by least squares through 0,
    without the tenth with the largest mu. Rows equal to another one are left out.

    Returns:
        NaN where fewer than three rows are different.
    """
    rows = some_rows(x, MAX_PAIR_ROWS).unique(dim=0)
    if len(rows) < 3:
        return math.nan
    near = torch.cdist(rows, rows).topk(3, largest=False).values[:, 1:]
    log_ratio = (near[:, 1] / near[:, 0]).log().sort().values
    rank = torch.arange(1, len(rows) + 1, dtype=torch.float64) / len(rows)
    kept = max(2, int(len(rows) * (1 - _LARGEST_RATIOS)))
    log_ratio, rank = log_ratio[:kept], rank[:kept]
    length = log_ratio @ log_ratio
    return float(-(log_ratio @ (1 - rank).log()) / length) if length > 0 else math.nan


def cluster_learnability(
    x: Float[Tensor, "N D"], clusters: int | None = None, *, seed: int = 0
) -> float:
    """CL, half of CLID: how soon a nearest neighbor learns the clusters of the rows, 0..1.

    Lu et al. 2022 (arXiv:2206.01251): k-means names a cluster of every row; rows come one after the
    other, and each is named by those before it; CL is the share that is named right. CLID adds CL
    and :func:`intrinsic_dimension`, each standardized over the networks that are compared, and so
    is no number of one network: see :func:`clid`. Here the nearest row by cosine names.

    Args:
        x: features.
        clusters: K; by default the root of N.
        seed: of the order and of k-means.

    Returns:
        NaN where fewer than three rows are different.
    """
    from sklearn.cluster import KMeans  # takes a second

    rows = F.normalize(some_rows(x, MAX_PAIR_ROWS), dim=1)
    different = len(rows.unique(dim=0))
    if different < 3:
        return math.nan
    rows = rows[random_keys(seed, 0, len(rows), "cluster learnability").argsort(stable=True)]
    number = min(clusters or round(math.sqrt(len(rows))), different)
    kmeans = KMeans(number, n_init=1, random_state=seed)  # type: ignore[arg-type]
    names = torch.from_numpy(kmeans.fit_predict(rows.float().cpu().numpy()))
    # the similarity to a row that has not come yet counts for nothing
    earlier = (rows @ rows.T).tril(-1) - 2 * torch.ones(len(rows), len(rows)).triu()
    found = names[earlier.argmax(1).cpu()]
    return float((found[1:] == names[1:]).double().mean())


def clid(learnability: Float[Tensor, " R"], dimension: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """CLID of R networks: the sum of both halves, each less its mean over its std (Lu et al. 2022).

    Args:
        learnability: :func:`cluster_learnability` of each.
        dimension: :func:`intrinsic_dimension` of each.
    """
    halves = [values - values.mean() for values in (learnability.double(), dimension.double())]
    return sum((half / half.std().clamp_min(1e-12) for half in halves), torch.zeros(()))


def nearest_neighbor_consistency(
    h1: Float[Tensor, "N D"], h2: Float[Tensor, "N E"], k: int = 10
) -> float:
    """The share of the k nearest neighbors that are the same in two views of the rows, 0..1.

    The mutual k-nearest-neighbor metric of Huh et al. 2024 (arXiv:2405.07987, App. A), by cosine:
    k / (N - 1) where nothing is in common.

    Args:
        h1: features of one view, or of one network.
        h2: of the same samples in another.
        k: neighbors.

    Raises:
        UserError: the numbers of rows differ, or are not above k.
    """
    if len(h1) != len(h2) or not 0 < k < len(h1):
        raise UserError(
            f"{k} neighbors of {len(h1)} and of {len(h2)} rows cannot be compared: give two views "
            "of the same rows, and fewer neighbors than rows"
        )
    near = [_neighbors(h, k) for h in (h1, h2)]
    shared = (near[0][:, :, None] == near[1][:, None, :]).any(2)
    return shared.double().mean().item()


def _neighbors(h: Float[Tensor, "N D"], k: int) -> Int[Tensor, "N k"]:
    unit = F.normalize(check_features(h).double(), dim=1)
    if len(unit) > MAX_ROWS:
        raise UserError(f"neighbors are compared of at most {MAX_ROWS:,} rows: give fewer")
    similarity = unit @ unit.T
    return similarity.fill_diagonal_(-math.inf).topk(k).indices
