"""What is measured while training runs: kNN where labels exist, and the shape of the features."""

import torch
from torch import nn

from similitude.data.images import ImageSet
from similitude.evaluation.features import Features, centered, extract_features, pixel_features
from similitude.evaluation.geometry import (
    alignment,
    effective_rank,
    feature_std,
    linear_cka,
    uniformity,
)
from similitude.evaluation.knn import KNNProbe
from similitude.randomness import permutation
from similitude.views import ImageSpec, MultiView

FEWEST_LABELS = 40  # for a kNN accuracy that is worth a number
BANK_SHARE = 0.8  # of the watched images are neighbours to vote, the rest are queries


class OnlineMonitor:
    """Measures a backbone on a fixed small part of the training images.

    Args:
        images: the training set; labels, if any, are read here and nowhere else in training.
        image: size and normalisation of the images.
        multi_view: the method's views, for alignment.
        seed: draws the watched part.
        start: the published backbone that training starts from; tells how far features drift.
        size: images watched at most.
    """

    def __init__(
        self,
        images: ImageSet,
        image: ImageSpec,
        multi_view: MultiView,
        *,
        seed: int,
        start: nn.Module | None = None,
        size: int = 2500,
    ) -> None:
        index = permutation(seed, -1, len(images))
        if images.labels is not None:  # labelled images first, for kNN; the others fill up
            index = index[(images.labels[index] < 0).int().argsort(stable=True)]
        self.images = images.subset(index[:size])
        self.image = image
        views = [
            multi_view(
                self.images.pixels[:500],
                torch.arange(len(self.images.pixels[:500])),
                seed=seed,
                epoch=epoch,
                aspect=self.images.aspect[:500],
            )[0].clone()  # without the other views, which may share its memory
            for epoch in (-1, -2)  # epochs that training never uses
        ]
        self.view1, self.view2 = views
        self.num_queries = 0
        has_labels = self.images.labels is not None
        pixels = pixel_features(self.images) if has_labels else None
        self.knn_of_pixels = None if pixels is None else self._knn(pixels, of_pixels=True)
        self.start_features = None
        self.knn_of_start = None
        if start is not None:
            device = next((p.device for p in start.parameters()), torch.device("cpu"))
            self.start_features = self._features(start, device)
            self.knn_of_start = self._knn(self.start_features)

    def _features(self, backbone: nn.Module, device: torch.device) -> Features:
        return extract_features(backbone, self.images, self.image, device=device)

    def measure(self, backbone: nn.Module, device: torch.device) -> dict[str, float]:
        """The shape of the features, by name of reading; ``knn`` accuracy where there are labels.

        The backbone is used in evaluation mode and left in the mode it was in.
        """
        features = self._features(backbone, device)
        x = features.x
        readings = {
            "feature_std": float(feature_std(x)),
            "feature_dim": float(x.shape[1]),
            "effective_rank": float(effective_rank(x)),
            "uniformity": float(uniformity(x)),
        }
        if self.start_features is not None:
            readings["drift"] = 1.0 - linear_cka(self.start_features.x, x)
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
        readings["alignment"] = float(alignment(h1, h2))
        if self.knn_of_pixels is not None:
            readings["knn_queries"] = float(self.num_queries)
        accuracies = {
            "knn": self._knn(features),
            "knn_raw": self.knn_of_pixels,
            "knn_start": self.knn_of_start,
        }
        for name, accuracy in accuracies.items():
            if accuracy is not None:
                readings[name] = accuracy
        return readings

    def _knn(self, features: Features, *, of_pixels: bool = False) -> float | None:
        """Accuracy where there are labels enough: some rows vote, the others are asked for."""
        if features.y is None:
            return None
        known = features.subset(features.y >= 0)
        if len(known) < FEWEST_LABELS or len(known.y.unique()) < 2:  # type: ignore[union-attr]
            return None
        count = int(len(known) * BANK_SHARE)
        bank, queries = known.subset(range(count)), known.subset(range(count, len(known)))
        self.num_queries = len(queries)
        if of_pixels:
            bank, queries = centered(bank, queries)
        probe = KNNProbe(k=min(20, count)).fit(bank.x, bank.y)  # type: ignore[arg-type]
        return float(probe.score(queries.x, queries.y))  # type: ignore[arg-type]
