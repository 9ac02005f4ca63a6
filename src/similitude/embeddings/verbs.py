"""What one does with embeddings: search, find duplicates and outliers, choose what to label.

N embeddings, Q queries, D numbers of an embedding, K neighbors.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from similitude.data.labels import read_labels
from similitude.data.source import Source
from similitude.embeddings.answer import Answer, Group, Item, Pictures, check_answer, pictures_of
from similitude.embeddings.embedder import Embedder, Model, embed_all, open_embedder
from similitude.embeddings.groups import THRESHOLD, duplicate_groups
from similitude.embeddings.neighbors import (
    build_index,
    check_approximate,
    neighbors,
    outlier_distance,
    unit_rows,
    without_themselves,
)
from similitude.embeddings.selection import diverse, typical
from similitude.embeddings.table import SUFFIXES, read_embeddings
from similitude.errors import UserError, did_you_mean
from similitude.evaluation import Features
from similitude.files.writing import as_path
from similitude.listener import Listener, Silent
from similitude.method import Method
from similitude.modalities import modality_of

CHOICES = ("typical", "diverse")
OUTLIER_NEIGHBOR = 10  # to whose distance an outlier is measured


@dataclass(frozen=True, eq=False)
class _Subject:
    """Embeddings of unit norm, how to make more of their kind, and how their samples look."""

    features: Features
    embedder: Embedder | None
    pictures: Pictures | None


def _open(
    embeddings: Model | Features,
    data: object | None,
    pictures: object | None,
    *,
    least: int,
    method: str | type[Method] | None,
    backbone: str | None,
    listener: Listener,
) -> _Subject:
    """The embeddings in a file or in memory, or those that a model gives of data."""
    shown = None if pictures is None else pictures_of(pictures)
    embedder = None
    if data is not None:
        if isinstance(embeddings, Features):
            raise UserError("embeddings were given beside data: give a model, or leave data out")
        kind = modality_of(data).kind
        embedder = open_embedder(embeddings, method=method, backbone=backbone, kind=kind)
        features, parts = embed_all(embedder, data, listener)
        shown = shown or Pictures(parts)
    elif isinstance(embeddings, Features):
        features = Features(embeddings.x.float().clone(), None, embeddings.names)
    elif not isinstance(embeddings, str | Path) or as_path(embeddings).suffix not in SUFFIXES:
        raise UserError(
            f"{embeddings} is no file of embeddings (.npz, .parquet): make one with similitude "
            "embed, or give DATA too, which it then embeds"
        )
    else:
        features = read_embeddings(embeddings)
    if pictures is not None and shown is not None and not shown.has_some(features.names):
        raise UserError(
            f"no sample of {embeddings} is in {pictures}: --pictures takes what was embedded"
        )
    if len(features) < least:
        raise UserError(f"{len(features)} embeddings are too few: there must be {least} at least")
    unit = unit_rows(features.x.numpy())
    return _Subject(Features(unit, None, features.names), embedder, shown)


def search(
    embeddings: Model | Features,
    data: object | None = None,
    *,
    query: Sequence[str] = (),
    queries: object | None = None,
    count: int = 10,
    approximate: bool = False,
    output: str | Path | None = None,
    pictures: object | None = None,
    method: str | type[Method] | None = None,
    backbone: str | None = None,
    listener: Listener | None = None,
) -> Answer:
    """The nearest samples of some, by the cosine of their embeddings.

    Exact, with all embeddings in memory (4 N D bytes, and 64 MB of cosines); a GPU is used where
    there is one.

    Args:
        embeddings: a file that :func:`similitude.embed` wrote, or ``Features``; with ``data`` a run
            or published weights, see :func:`similitude.embed`.
        data: what to embed first.
        query: names of samples whose neighbors are looked for.
        queries: other samples whose neighbors are looked for: with ``data`` what the same model
            embeds, else a file of embeddings. Without both, every sample is asked about.
        count: K.
        approximate: whether a graph is built and searched (usearch), in place of all pairs.
        output: a .csv file with columns query, rank, file and similarity, -1..1; where pictures are
            known, a page of the same name that ends in .html.
        pictures: where the samples of a file are, for the page: whatever
            :func:`similitude.pretrain` takes, of the same names.
        method: "module:Class" of your own, if the run was trained with it.
        backbone: the network that a file of weights is of, where its tensors do not tell.
        listener: hears how it goes.

    Raises:
        UserError: there is no such sample, and whatever the caller can mend.
    """
    heard = listener or Silent()
    target = check_answer(output)
    if approximate:
        check_approximate()
    if query and queries is not None:
        raise UserError("names of samples and other samples were given: give one of them")
    how: dict[str, Any] = {"method": method, "backbone": backbone, "listener": heard}
    subject = _open(embeddings, data, pictures, least=2, **how)
    bank, asked, asked_pictures = subject.features, subject.features, subject.pictures
    count = min(count, len(bank) - (queries is None))
    if queries is not None:
        asked, asked_pictures = _questions(queries, subject, heard)
        index = build_index(bank.x, approximate=approximate, listener=heard)
        similar, found = index.search(asked.x, count, heard)
    elif query:
        at = {name: i for i, name in enumerate(bank.names)}
        if missing := [name for name in query if name not in at]:
            raise UserError(f"no sample is called {missing[0]!r}: one is called {bank.names[0]!r}")
        rows = torch.tensor([at[name] for name in query])
        asked = bank.subset(rows)
        index = build_index(bank.x, approximate=approximate, listener=heard)
        similar, found = without_themselves(rows, *index.search(asked.x, count + 1, heard))
    else:
        similar, found = neighbors(bank.x, count, approximate=approximate, listener=heard)

    def groups() -> Iterator[Group]:
        for name, near, cosines in zip(asked.names, found, similar, strict=True):
            named = [bank.names[j] for j in near.tolist()]
            yield Group(name, list(map(Item, named, cosines.tolist())))

    told = (
        f"the {count} nearest of {len(asked):,} among {len(bank):,}, by cosine"
        f"{', approximate' if approximate else ''}"
    )
    columns = ("query", "rank", "file", "similarity")
    shown = (subject.pictures, asked_pictures)
    answer = Answer("What is alike", told, columns, len(asked), groups, *shown)
    return answer.written(target, heard)


def _questions(
    queries: object, subject: _Subject, listener: Listener
) -> tuple[Features, Pictures | None]:
    """Other samples, in the space of the embeddings."""
    shown = None
    if isinstance(queries, Features):
        features = Features(queries.x.float().clone(), None, queries.names)
    elif subject.embedder is not None:
        features, parts = embed_all(subject.embedder, queries, listener)
        shown = Pictures(parts)
    else:
        features = read_embeddings(queries)  # type: ignore[arg-type]
    theirs, ours = features.x.shape[1], subject.features.x.shape[1]
    if theirs != ours:
        raise UserError(
            f"the queries have {theirs} numbers each, and the embeddings {ours}: embed both with "
            "one model"
        )
    return Features(unit_rows(features.x.numpy()), None, features.names), shown


def duplicates(
    embeddings: Model | Features,
    data: object | None = None,
    *,
    threshold: float = THRESHOLD,
    approximate: bool = False,
    output: str | Path | None = None,
    pictures: object | None = None,
    method: str | type[Method] | None = None,
    backbone: str | None = None,
    listener: Listener | None = None,
) -> Answer:
    """Groups of samples that are nearly the same; see :func:`duplicate_groups`.

    Args:
        embeddings: see :func:`search`.
        data: see :func:`search`.
        threshold: of the cosine of a pair, above 0 and up to 1; what it should be depends on the
            model: look at the page.
        approximate: whether the 20 nearest of each are looked at, in place of all pairs.
        output: a .csv file with columns group, file and similarity to the first of the group; see
            :func:`search`. Whoever removes all but the first of each group keeps one of a kind.
        pictures: see :func:`search`.
        method: see :func:`search`.
        backbone: see :func:`search`.
        listener: hears how it goes.

    Raises:
        UserError: whatever the caller can mend.
    """
    heard = listener or Silent()
    target = check_answer(output)
    if not 0 < threshold <= 1:
        raise UserError(f"the threshold of a cosine lies above 0 and up to 1, not {threshold:g}")
    if approximate:
        check_approximate()
    how: dict[str, Any] = {"method": method, "backbone": backbone, "listener": heard}
    subject = _open(embeddings, data, pictures, least=2, **how)
    x, names = subject.features.x, subject.features.names
    found = duplicate_groups(x, threshold, approximate=approximate, listener=heard)

    def groups() -> Iterator[Group]:
        for first, *others in found:
            cosines = (x[others] @ x[first]).tolist()
            named = [names[i] for i in others]
            yield Group(None, [Item(names[first]), *map(Item, named, cosines)])

    more = sum(len(group) - 1 for group in found)
    told = (
        f"{len(found):,} group{'' if len(found) == 1 else 's'} of samples with a cosine of "
        f"{threshold:g} and more; without duplicates {len(x) - more:,} of {len(x):,} are left"
    )
    if 2 * more > len(x):
        told += (
            ". That is more than half: either the data is full of copies, or these embeddings "
            "hardly differ, and say nothing of copies"
        )
    both = sum(len({names[i].partition("/")[0] for i in g} & {"train", "test"}) == 2 for g in found)
    if both:
        told += f". {both:,} groups lie in the training and the test part"
    columns = ("group", "file", "similarity")
    title = "What is there more than once"
    answer = Answer(title, told, columns, len(found), groups, subject.pictures)
    return answer.written(target, heard)


def outliers(
    embeddings: Model | Features,
    data: object | None = None,
    *,
    count: int = 100,
    neighbor: int = OUTLIER_NEIGHBOR,
    approximate: bool = False,
    output: str | Path | None = None,
    pictures: object | None = None,
    method: str | type[Method] | None = None,
    backbone: str | None = None,
    listener: Listener | None = None,
) -> Answer:
    """The samples that are farthest from their neighbors; see :func:`outlier_distance`.

    Args:
        embeddings: see :func:`search`.
        data: see :func:`search`.
        count: how many are listed.
        neighbor: to which of its neighbors a sample is measured; so many samples that lie together
            are no outliers.
        approximate: see :func:`search`.
        output: a .csv file with columns rank, file and distance; see :func:`search`.
        pictures: see :func:`search`.
        method: see :func:`search`.
        backbone: see :func:`search`.
        listener: hears how it goes.

    Raises:
        UserError: whatever the caller can mend.
    """
    heard = listener or Silent()
    target = check_answer(output)
    if approximate:
        check_approximate()
    how: dict[str, Any] = {"method": method, "backbone": backbone, "listener": heard}
    subject = _open(embeddings, data, pictures, least=2, **how)
    features = subject.features
    neighbor = min(neighbor, len(features) - 1)
    distance = outlier_distance(features.x, neighbor, approximate=approximate, listener=heard)
    first = distance.argsort(descending=True, stable=True)[:count]
    told = (
        f"the {len(first):,} of {len(features):,} that are farthest from their neighbor number "
        f"{neighbor}"
    )
    return _listed(
        "What is unlike all else", told, "distance", subject, first, distance[first]
    ).written(target, heard)


def choose(
    embeddings: Model | Features,
    data: object | None = None,
    *,
    count: int = 100,
    by: str = "typical",
    labels: str | Path | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    pictures: object | None = None,
    method: str | type[Method] | None = None,
    backbone: str | None = None,
    listener: Listener | None = None,
) -> Answer:
    """Which samples to label next; see :func:`typical` and :func:`diverse`.

    Args:
        embeddings: see :func:`search`.
        data: see :func:`search`.
        count: how many.
        by: "typical", for the first few labels, or "diverse", for more of them.
        labels: a CSV file of ``file,label`` rows: what is labeled already.
        seed: of the clusters of "typical".
        output: a .csv file with columns rank, file, and typicality or distance; see :func:`search`.
        pictures: see :func:`search`.
        method: see :func:`search`.
        backbone: see :func:`search`.
        listener: hears how it goes.

    Raises:
        UserError: whatever the caller can mend.
    """
    heard = listener or Silent()
    target = check_answer(output)
    if by not in CHOICES:
        raise UserError(f"nothing is chosen by {by!r}: {did_you_mean(by, CHOICES)}")
    how: dict[str, Any] = {"method": method, "backbone": backbone, "listener": heard}
    subject = _open(embeddings, data, pictures, least=2, **how)
    features = subject.features
    labeled = _labeled(labels, features)
    free = len(features) - len(labeled)
    if count > free:
        raise UserError(f"{count} are to be chosen, and {free} are without a label: choose fewer")
    if by == "typical":
        first, value = typical(features.x, count, labeled, seed, heard)
        measure = "typicality"
    else:
        first, value = diverse(features.x, count, labeled, heard)
        measure = "distance"
    told = f"{len(first):,} of {free:,} without a label, the most {by} first"
    if len(first) < count:
        told += "; all others lie in clusters that are too small to be typical of anything"
    return _listed("What to label next", told, measure, subject, first, value).written(
        target, heard
    )


def _listed(
    title: str, told: str, measure: str, subject: _Subject, index: Tensor, values: Tensor
) -> Answer:
    """An answer of one list, which stands in the order of its rank."""
    names = [subject.features.names[i] for i in index.tolist()]
    known = [value if math.isfinite(value) else None for value in values.tolist()]
    group = Group(None, list(map(Item, names, known)))
    return Answer(
        title, told, ("rank", "file", measure), 1, lambda: iter([group]), subject.pictures
    )


@dataclass(frozen=True, kw_only=True)
class _Named(Source):
    """Samples of which nothing but the names is known."""

    def fingerprint(self) -> str:
        return ""


def _labeled(labels: str | Path | None, features: Features) -> Int[Tensor, " L"]:
    """Positions of the samples that a table has labels of."""
    if labels is None:
        return torch.empty(0, dtype=torch.int64)
    found, _ = read_labels(labels, _Named(name="the embeddings", names=features.names))
    return (found >= 0).nonzero()[:, 0]
