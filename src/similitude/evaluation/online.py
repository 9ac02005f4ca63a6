"""What is measured while training runs: kNN where labels exist, and the shape of the features."""

import math
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from similitude.evaluation.features import Features, centered, extract_features, raw_features
from similitude.evaluation.geometry import (
    alignment,
    effective_rank,
    feature_std,
    linear_cka,
    uniformity,
)
from similitude.evaluation.knn import KNNProbe
from similitude.randomness import MANY
from similitude.sample import Facts, MultiView, Samples

FEWEST_LABELS = 40  # for a kNN accuracy that is worth a number
QUERY_SHARE = 0.2  # of each class's watched images are asked for, the others vote
NUM_ALIGNED = 500  # watched images at most whose views are compared
_LOOKED_AT = 1 << 20  # of very many samples, or of blocks, so many are looked at for labeled ones


class OnlineMonitor:
    """Measures a backbone on a fixed small part of the training samples.

    Args:
        samples: the training set; labels, if any, are read here and nowhere else in training.
        facts: what the backbone's input is like.
        multi_view: the method's views, for alignment.
        seed: draws the watched part.
        start: the published backbone that training starts from; tells how far features drift.
        size: samples watched at most.
    """

    def __init__(
        self,
        samples: Samples[Any],
        facts: Facts,
        multi_view: MultiView,
        *,
        seed: int,
        start: nn.Module | None = None,
        size: int = 2500,
    ) -> None:
        n = len(samples)
        # where samples lie in blocks, those first in the order are of few, and others cost more
        looked_at = n if n <= MANY and samples.blocks is None else _LOOKED_AT
        index = samples.order(seed, -1)[:looked_at]
        if samples.labels is not None:  # labeled samples first, for kNN; the others fill up
            index = index[(samples.labels[index] < 0).int().argsort(stable=True)]
        self.samples = samples.subset(index[:size].sort().values)
        self.facts = facts
        self.copies = self.samples.copies()
        some = self.samples.spread(NUM_ALIGNED)
        rows, places = some.take(slice(None)), torch.arange(len(some))
        views = [
            multi_view(rows, places, seed=seed, epoch=epoch)[0].clone()
            for epoch in (-1, -2)  # epochs that training never uses
        ]  # without the other views, which may share its memory
        self.view1, self.view2 = views
        self.num_queries = 0
        has_labels = self.samples.labels is not None
        raw = raw_features(self.samples) if has_labels else None
        self.knn_of_raw = None if raw is None else self._knn(raw, is_raw=True)
        self.start_features = None
        self.knn_of_start = None
        if start is not None:
            device = next((p.device for p in start.parameters()), torch.device("cpu"))
            self.start_features = self._features(start, device)
            self.knn_of_start = self._knn(self.start_features)

    def _features(self, backbone: nn.Module, device: torch.device) -> Features:
        return extract_features(backbone, self.samples, self.facts, device=device)

    def measure(self, backbone: nn.Module, device: torch.device) -> dict[str, float]:
        """The shape of the features, by name of reading; ``knn`` accuracy where there are labels.

        Where a feature is not a finite number, ``feature_std`` is NaN and alone. The backbone is
        used in evaluation mode and left in the mode it was in.
        """
        features = self._features(backbone, device)
        x = features.x
        modes = [(m, m.training) for m in backbone.modules()]
        backbone.eval()
        try:
            with torch.inference_mode():
                h1, h2 = (
                    backbone(view.to(device)).float().cpu() for view in (self.view1, self.view2)
                )
            if h1.ndim > 2:  # of patches: an image is their mean, as in evaluation
                h1, h2 = h1.flatten(1, -2).mean(dim=1), h2.flatten(1, -2).mean(dim=1)
        finally:
            for module, mode in modes:
                module.training = mode
        if not all(bool(h.isfinite().all()) for h in (x, h1, h2)):
            return {"feature_std": math.nan}
        readings = {
            "feature_std": float(feature_std(x)),
            "feature_dim": float(x.shape[1]),
            "effective_rank": float(effective_rank(x)),
            "uniformity": float(uniformity(x)),
            "alignment": float(alignment(h1, h2)),
            "copies": self.copies,
        }
        if self.start_features is not None:
            readings["drift"] = 1.0 - linear_cka(self.start_features.x, x)
        if self.knn_of_raw is not None:
            readings["knn_queries"] = float(self.num_queries)
        accuracies = {
            "knn": self._knn(features),
            "knn_raw": self.knn_of_raw,
            "knn_start": self.knn_of_start,
        }
        for name, accuracy in accuracies.items():
            if accuracy is not None:
                readings[name] = accuracy
        return readings

    def _knn(self, features: Features, *, is_raw: bool = False) -> float | None:
        """Accuracy where there are labels enough: some rows vote, the others are asked for."""
        if features.y is None:
            return None
        known = features.subset(features.y >= 0)
        if len(known) < FEWEST_LABELS or len(known.y.unique()) < 2:  # type: ignore[union-attr]
            return None
        asked = last_of_each_class(known.y, QUERY_SHARE)  # type: ignore[arg-type]
        if not bool(asked.any()):  # a class for every image
            return None
        bank, queries = known.subset(~asked), known.subset(asked)
        self.num_queries = len(queries)
        if is_raw:
            bank, queries = centered(bank, queries)
        probe = KNNProbe(k=min(20, len(bank))).fit(bank.x, bank.y)  # type: ignore[arg-type]
        return float(probe.score(queries.x, queries.y))  # type: ignore[arg-type]


def last_of_each_class(labels: Int[Tensor, " n"], share: float) -> Bool[Tensor, " n"]:
    """Marks the last rows of every class: a share of them, rounded, and never all.

    Files lie in the order of their names, and pictures taken in a row (a burst, frames of a film,
    a thing from two sides) stand beside each other. A random part asks for pictures whose near
    copies vote, and of those raw pixels know most.

    Args:
        labels: Class of each row.
        share: Of each class, 0..1; at least one row of a class that has two.
    """
    marked = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        marked[rows[len(rows) - count :]] = True
    return marked
