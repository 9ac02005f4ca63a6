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
MIN_CLUSTER = 5  # rows; what is smaller is left out
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
    there are labels and wishes, 500 at most; a row is typical if its 20 nearest in its cluster (or
    half of a small one) are near. Clusters with the fewest labels come first, among them the largest;
    those of less than 5 rows are left out. For few labels: where there are many, ``diverse`` is as
    good.

    **Differs from the reference code** (avihu111/TypiClust): distances are not squared, as in the
    paper's equation 1, and rows that are labeled or chosen still count as neighbors.

    Args:
        x: Unit norm.
        count: B.
        labeled: Positions of rows that are labeled already; may be none.
        seed: Of the clusters.
        listener: Hears how it goes.

    Returns:
        Positions in the order in which they are chosen, and the typicality of each, above 0.

    Raises:
        UserError: There are no clusters of 5 rows and more.
    """
    heard = listener or Silent()
    of = _clusters(x, min(len(labeled) + count, MAX_CLUSTERS), seed)
    sizes = np.bincount(of)
    known = np.bincount(of[labeled.numpy()], minlength=len(sizes))
    usable = np.flatnonzero(sizes >= MIN_CLUSTER)
    if not len(usable):
        raise UserError(
            f"{len(x)} embeddings have no cluster of {MIN_CLUSTER}: choose fewer, or by diversity"
        )
    order = usable[np.lexsort((-sizes[usable], known[usable]))]
    is_labeled = np.zeros(len(x), bool)
    is_labeled[labeled.numpy()] = True
    ranked: dict[int, list[tuple[int, float]]] = {}  # of a cluster, the most typical last
    picks, values = [], []
    while len(picks) < count:
        before = len(picks)
        for cluster in order.tolist():
            if len(picks) == count:
                break
            if cluster not in ranked:
                inside = np.flatnonzero(of == cluster)
                ranked[cluster] = _by_typicality(x, inside, is_labeled)
            if ranked[cluster]:
                pick, value = ranked[cluster].pop()
                picks.append(pick)
                values.append(value)
                heard.progress("choosing", len(picks), count)
        if len(picks) == before:  # all of the clusters are chosen
            break
    return torch.tensor(picks, dtype=torch.int64), torch.tensor(values)


def _clusters(x: Tensor, count: int, seed: int) -> Int[np.ndarray, " N"]:
    """Number of the cluster of each row; k-means of small batches where clusters are many."""
    from sklearn.cluster import KMeans, MiniBatchKMeans

    count = min(count, len(x))
    if count <= 50:
        found = KMeans(count, random_state=seed).fit(x.numpy())
    else:
        found = MiniBatchKMeans(count, batch_size=5000, random_state=seed).fit(x.numpy())
    return np.asarray(found.labels_)


def _by_typicality(
    x: Tensor, inside: Int[np.ndarray, " M"], is_labeled: np.ndarray
) -> list[tuple[int, float]]:
    """Rows of a cluster without those that are labeled, the most typical last."""
    k = max(1, min(NEIGHBORS, len(inside) // 2))
    similar, _ = neighbors(x[torch.from_numpy(inside)], k)
    distance = (2 - 2 * similar).clamp_min(0).sqrt().mean(1)
    typicality = 1 / (distance + 1e-5)
    order = typicality.argsort(stable=True).tolist()
    return [(int(inside[i]), float(typicality[i])) for i in order if not is_labeled[inside[i]]]
