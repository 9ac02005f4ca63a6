"""Finding what belongs together across two sensors, and classes by their descriptions.

Letters: Q questions, C candidates, P numbers of a projection.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from similitude.evaluation.retrieval_table import KS, Retrieval

_AT_ONCE = 1024  # questions


def ranks_of(
    questions: Float[Tensor, "Q P"], candidates: Float[Tensor, "C P"], right: Int[Tensor, "2 E"]
) -> Int[Tensor, " Q"]:
    """The place of the best right candidate of each question, from 1.

    A wrong candidate that is as similar comes before it: constant embeddings find nothing.

    Args:
        questions: Unit norm.
        candidates: Unit norm.
        right: Pairs of a question and a candidate that belong together; each question has one.
    """
    found = []
    for first in range(0, len(questions), _AT_ONCE):
        some = questions[first : first + _AT_ONCE]
        similar = some @ candidates.T
        of_these = (right[0] >= first) & (right[0] < first + len(some))
        belongs: Bool[Tensor, "Q C"] = torch.zeros_like(similar, dtype=torch.bool)
        belongs[right[0][of_these] - first, right[1][of_these]] = True
        best = similar.masked_fill(~belongs, -torch.inf).amax(dim=1, keepdim=True)
        found.append(1 + ((similar >= best) & ~belongs).sum(dim=1))
    return torch.cat(found)


def retrieval(
    row: str,
    names: tuple[str, str],
    questions: Float[Tensor, "Q P"],
    candidates: Float[Tensor, "C P"],
    right: Int[Tensor, "2 E"],
) -> Retrieval:
    """Recall and median rank; see :func:`ranks_of`.

    Args:
        row: Whose embeddings.
        names: Of the sensor that asks, and of the other.
        questions: Unit norm.
        candidates: Unit norm.
        right: See :func:`ranks_of`.
    """
    ranks = ranks_of(questions, candidates, right)
    recall = {k: (ranks <= k).double().mean().item() for k in KS if k < len(candidates)}
    # of an even number the mean of both in the middle
    middle = ranks.double().quantile(0.5).item()
    return Retrieval(row, *names, len(questions), len(candidates), recall, middle)


def zero_shot(
    x: Float[Tensor, "N P"], prompts: Float[Tensor, "C R P"], labels: Int[Tensor, " N"]
) -> float:
    """The share of samples whose class has the nearest description (CLIP, Sec. 3.1), 0..1.

    Args:
        x: Unit norm.
        prompts: R descriptions of each class, unit norm; their mean stands for the class.
        labels: Class of each sample, -1 where unknown, which is left out.
    """
    of_class = torch.nn.functional.normalize(prompts.mean(dim=1), dim=1)
    known = labels >= 0
    return ((x[known] @ of_class.T).argmax(dim=1) == labels[known]).double().mean().item()
