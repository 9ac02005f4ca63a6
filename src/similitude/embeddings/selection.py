"""Which samples to label next.

N rows, D numbers of an embedding, B samples that are chosen.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from similitude.embeddings.neighbors import neighbors
from similitude.errors import UserError
from similitude.evaluation.knn import nearest_rows
from similitude.listener import Listener, Silent

# TypiClust's, Appendix F.1 and its code
MAX_CLUSTERS = 500
SMALL_CLUSTER = 5  # rows; what is not larger is left out
NEIGHBORS = 20

Chosen = tuple[Int[Tensor, " B"], Float[Tensor, " B"]]


def diverse(
    x: Float[Tensor, "N D"],
    count: int,
    labeled: Int[Tensor, " L"],
    listener: Listener | None = None,
) -> Chosen:
    """The farthest row from all that are labeled or chosen, one after the other.

    The greedy k-center algorithm, core-set selection (Sener and Savarese 2018, Algorithm 1), on
    unit rows. Where nothing is labeled the first is the row nearest to the mean of all.

    Args:
        x: Unit norm.
        count: B.
        labeled: Positions of rows that are labeled already; may be none.
        listener: Hears how it goes.

    Returns:
        Positions in the order in which they are chosen, and the distance of each to the nearest
        that was labeled or chosen before it, 0..2; infinite for the first of all.
    """
    heard = listener or Silent()
    if len(labeled):
        nearest = torch.cat([best[:, 0] for best, _ in nearest_rows(x, x[labeled], 1)])
    else:
        nearest = torch.full((len(x),), -torch.inf)
    picks, cosines = [], []
    for number in range(count):
        first = number == 0 and len(labeled) == 0
        pick = int((x @ x.mean(0)).argmax() if first else nearest.argmin())
        picks.append(pick)
        cosines.append(nearest[pick])
        nearest = torch.maximum(nearest, x @ x[pick])
        nearest[pick] = torch.inf  # not again, nor what is equal to it before all others
        heard.progress("choosing", number + 1, count)
    return torch.tensor(picks), (2 - 2 * torch.stack(cosines)).clamp_min(0).sqrt()


def typical(
    x: Float[Tensor, "N D"],
    count: int,
    labeled: Int[Tensor, " L"],
    seed: int = 0,
    listener: Listener | None = None,
) -> Chosen:
    """The most typical row of each cluster that has no label yet, the largest cluster first.

    TypiClust (Hacohen et al. 2022, Section 3.2 and Appendix F.1): as many clusters by k-means as
    there are labels and wishes, 500 at most; a row is typical if its 20 nearest in its cluster
    (half of a small one) are near. Clusters with the fewest labels come first, among them the
    largest; those of 5 rows and fewer are left out, so that fewer than B may be found. It is meant
    for the first few labels.

    **Differs from the reference code** (avihu111/TypiClust): distances are not squared, as in the
    paper's equation 1. As there, rows that are labeled or chosen are no neighbors.

    Args:
        x: Unit norm.
        count: B.
        labeled: Positions of rows that are labeled already; may be none.
        seed: Of the clusters.
        listener: Hears how it goes.

    Returns:
        Positions in the order in which they are chosen, and the typicality of each, above 0.

    Raises:
        UserError: No cluster has more than 5 rows.
    """
    heard = listener or Silent()
    of = _clusters(x, min(len(labeled) + count, MAX_CLUSTERS), seed)
    sizes = np.bincount(of)
    known = np.bincount(of[labeled.numpy()], minlength=len(sizes))
    usable = np.flatnonzero(sizes > SMALL_CLUSTER)
    if not len(usable):
        raise UserError(
            f"{len(x)} embeddings have no cluster of more than {SMALL_CLUSTER}: choose fewer, or "
            "by diversity"
        )
    order = usable[np.lexsort((-sizes[usable], known[usable]))]
    of[labeled.numpy()] = -1
    picks, values = [], []
    while len(picks) < count and np.isin(of, order).any():
        for cluster in order[: count - len(picks)]:
            inside = np.flatnonzero(of == cluster)
            if not len(inside):
                continue
            typicality = _typicality(x[torch.from_numpy(inside)])
            best = int(typicality.argmax())
            of[inside[best]] = -1  # nor does it make a copy of it typical
            picks.append(int(inside[best]))
            values.append(float(typicality[best]))
            heard.progress("choosing", len(picks), count)
    return torch.tensor(picks, dtype=torch.int64), torch.tensor(values)


def _clusters(x: Tensor, count: int, seed: int) -> Int[np.ndarray, " N"]:
    """Number of the cluster of each row; k-means of small batches where clusters are many."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(x))
    if count <= 50:
        found = KMeans(count, random_state=seed).fit(x.numpy())
    else:
        found = MiniBatchKMeans(count, batch_size=5000, random_state=seed).fit(x.numpy())
    return np.array(found.labels_)


def _typicality(x: Float[Tensor, "M D"]) -> Float[Tensor, " M"]:
    """One over the mean distance to the nearest rows of a cluster; a lone row is not typical."""
    if len(x) == 1:
        return torch.zeros(1)
    similar, _ = neighbors(x, max(1, min(NEIGHBORS, len(x) // 2)))
    return 1 / ((2 - 2 * similar).clamp_min(0).sqrt().mean(1) + 1e-5)
