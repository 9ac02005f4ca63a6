"""What is measured of a run, for its verdict."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

State = Literal["healthy", "doubtful", "collapsed"]


@dataclass(frozen=True)
class Readings:
    """What was measured at the end of a run; None is "not measured".

    Attributes:
        loss: Last loss (a mean over the last log period), in the loss's own units.
        chance_loss: Loss of a code that carries no information, e.g. ln K; None where a method
            has none.
        loss_floor: The lowest loss there is, where that is not 0: DIET's, with smoothed labels.
        nan_step: First step at which the loss, a weight or a feature was not finite.
        feature_std: Of L2-normalized backbone features, mean over channels; 1/sqrt(D) is healthy.
        feature_dim: D.
        feature_std_start: The same of the random weights.
        projection_std: Std of unit projections times sqrt(P): 1 is healthy, 0 collapsed.
        projection_std_peak: The largest it was during the run.
        projection_std_lowest: The smallest it was.
        center_share: What unit projections have in common, |E[Z]|^2: 0..1; 1 when all are equal.
        extra_center_share: The same of the extra gradient, of its mean square; see `nets.outputs`.
        extra_center_cosine: Of its center and that of the projections, -1..1; below 0 it takes the
            center away.
        extra_residual_cosine: Of its residuals and theirs, -1..1.
        target_entropy: Of the targets' soft classes, mean over images, in nats: 0..ln K; DINO's.
        target_kl: Divergence of the online network from the targets, in nats, 0 or more.
        prototype_entropy: Of how often each prototype is the nearest one, in nats; SwAV's.
        effective_rank: RankMe of the backbone features, 1..D.
        alignment: Mean squared distance of two views, 0..4.
        uniformity: Log mean of exp(-2 d^2) over pairs; 0 when all are equal.
        knn: kNN accuracy of the backbone, 0..1.
        knn_random: kNN accuracy of the same backbone before training: with random weights, or with
            the published ones it started from.
        knn_raw: kNN accuracy of the raw pixels of the same images.
        knn_queries: Images that these accuracies are shares of.
        weight_change: How far the backbone's parameters were turned, 0 or more; decay alone turns
            none.
        copies: Share of the watched images that are equal to another one, 0..1.
        drift: 1 - linear CKA between the features and those of the published weights that training
            started from, 0..1; None where it started from random ones.
        steps: Optimizer steps done.
        unreadable_share: Share of the files that could not be read, 0..1.
        num_images: Training images.
    """

    loss: float | None = None
    chance_loss: float | None = None
    loss_floor: float | None = None
    nan_step: int | None = None
    feature_std: float | None = None
    feature_dim: float | None = None
    feature_std_start: float | None = None
    projection_std: float | None = None
    projection_std_peak: float | None = None
    projection_std_lowest: float | None = None
    center_share: float | None = None
    extra_center_share: float | None = None
    extra_center_cosine: float | None = None
    extra_residual_cosine: float | None = None
    target_entropy: float | None = None
    target_kl: float | None = None
    prototype_entropy: float | None = None
    effective_rank: float | None = None
    alignment: float | None = None
    uniformity: float | None = None
    knn: float | None = None
    knn_random: float | None = None
    knn_raw: float | None = None
    knn_queries: float | None = None
    drift: float | None = None
    weight_change: float | None = None
    copies: float | None = None
    steps: float | None = None
    unreadable_share: float | None = None
    num_images: float | None = None


class Finding(NamedTuple):
    """What one rule has to say."""

    state: State
    reason: str
    advice: str
