"""A linear probe on a handful of labels: what a backbone is for.

Shapes: N rows, D features, C classes, R draws, n labeled rows of one draw (C * k).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from similitude.errors import UserError
from similitude.evaluation.checks import check_features, check_labeled
from similitude.evaluation.draws import random_keys, rank_within_class
from similitude.evaluation.features import Features
from similitude.evaluation.linear import standardization
from similitude.evaluation.logistic import Rows, fit_logistic, logits

LABELS_PER_CLASS = (1, 5, 10, 100)
PENALTIES = (1.0, 0.1, 0.01, 0.001)
FOLDS = 5
ONE_FOLD_FROM = 50  # labels per class from which one fold of five is large enough to choose by
# Below FOLDS labels per class nothing can be held out. Measured on Fashion-MNIST (raw pixels, a
# random and a pretrained backbone): from 1 down to 0.0001 the scores of one label per class differ
# by less than one point, so the middle is safe.
FIXED_PENALTY = 0.1
_TOLERANCE = 1e-3  # ten times finer changes no score by more than its interval
_MAX_ITERATIONS = 50


def few_label_accuracies(
    train: Features,
    test: Features,
    labels_per_class: Sequence[int] = LABELS_PER_CLASS,
    draws: int = 10,
    seed: int = 0,
) -> dict[int, list[float]]:
    """Accuracy of a linear probe on k labels per class, over several draws of the labels.

    See :func:`few_label_predictions`.

    Returns:
        The accuracy of each draw, for each k; ``scores.mean_score`` gives mean and interval.
    """
    found = few_label_predictions(train, test, labels_per_class, draws, seed)
    test_y = test.labeled().y
    return {k: (p == test_y).double().mean(1).tolist() for k, p in found.items()}


def few_label_predictions(
    train: Features,
    test: Features,
    labels_per_class: Sequence[int] = LABELS_PER_CLASS,
    draws: int = 10,
    seed: int = 0,
) -> dict[int, Int[Tensor, "R N"]]:
    """What a linear probe on k labels per class says of each test row, over draws of the labels.

    A draw is a function of the seed and the labels only: all backbones meet the same labeled
    samples, and those of a small k are among those of a larger one. Rows are L2-normalized,
    standardized with the statistics of *all* training rows (they need no label; with one std for
    all columns where ``train.one_scale``) and L2-normalized again, to length sqrt(D).

    The L2 penalty is chosen by the cross-entropy in a 5-fold cross-validation inside the k labels
    of each draw; accuracies of so few rows are too coarse to choose by. From 50 labels on one fold
    of the five is enough; below 5 it is 0.1.

    Args:
        train: Rows to draw from; those without a label only take part in the statistics.
        test: Rows to classify; those without a label are left out.
        labels_per_class: The values of k.
        draws: Draws per k, at least 1.
        seed: Any integer.

    Returns:
        The classes that each draw finds, for each k. A k that some class has not enough samples for
        is left out: :func:`few_label_skips` says why.

    Raises:
        UserError: If there are no labels or fewer than two classes.
    """
    if draws < 1 or any(k < 1 for k in labels_per_class):
        raise UserError("the numbers of draws and of labels per class must be at least 1")
    if train.y is None or test.y is None:
        raise UserError("few-label scores need labels in both the training and the test part")
    check_labeled(train.x, train.y)
    test_x, _ = check_labeled(test.x, test.y)
    skipped = few_label_skips(train.y, labels_per_class)
    known = train.y >= 0
    classes, target = torch.unique(train.y[known], return_inverse=True)
    if len(classes) < 2:
        raise UserError("few-label scores need at least two classes among the training labels")
    unit = F.normalize(check_features(train.x), dim=1)
    mean, std = standardization(unit, train.one_scale)
    pool = unit[known]
    queries = _normalized(F.normalize(test_x.to(pool), dim=1), mean, std)
    keys = [random_keys(seed, draw, len(train), "few labels")[known] for draw in range(draws)]
    ranks = torch.stack([rank_within_class(key, target) for key in keys])
    predicted = {}
    for k in labels_per_class:
        if k in skipped:
            continue
        index = torch.stack([(rank < k).nonzero().squeeze(1) for rank in ranks])
        rows = _normalized(pool[index], mean, std)
        fold = ranks.gather(1, index) % FOLDS
        coefficients = _fit_draws(rows, target[index], fold, len(classes), k)
        found = [classes[logits(queries[None], w[None])[0, 0].argmax(1)] for w in coefficients]
        predicted[k] = torch.stack(found)
    return predicted


def few_label_skips(
    y: Int[Tensor, " N"], labels_per_class: Sequence[int], class_names: Sequence[str] | None = None
) -> dict[int, str]:
    """For each k that some class has not enough samples for, a sentence that says so."""
    classes, counts = torch.unique(y[y >= 0], return_counts=True)
    if len(classes) == 0:
        raise UserError("none of the training samples has a label")
    smallest = int(counts.argmin())
    number = int(classes[smallest])
    name = str(number) if class_names is None else repr(class_names[number])
    return {
        k: f"No column for {k} label{'' if k == 1 else 's'} per class: class "
        f"{name} has only {int(counts[smallest])} labeled training sample"
        f"{'' if counts[smallest] == 1 else 's'}."
        for k in labels_per_class
        if counts[smallest] < k
    }


def _normalized(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return F.normalize((x - mean) / std, dim=-1) * x.shape[-1] ** 0.5


def _fit_draws(
    x: Float[Tensor, "R n D"],
    y: Int[Tensor, "R n"],
    fold: Int[Tensor, "R n"],
    num_classes: int,
    k: int,
) -> Float[Tensor, "R 1 D1 C"]:
    """Coefficients of every draw, all draws in one optimization."""
    basis = None
    if x.shape[1] < x.shape[2]:
        # The solution lies in the span of the rows: n coordinates instead of D, the same minimum.
        basis, triangle = torch.linalg.qr(x.mT)
        x = triangle.mT.contiguous()
    everything = torch.ones_like(fold, dtype=torch.bool)[:, None]
    if k < FOLDS:
        fitted = _fit(x, y, everything, num_classes, FIXED_PENALTY, None)
    else:
        folds = torch.arange(FOLDS if k < ONE_FOLD_FROM else 1, device=fold.device)
        out = fold[:, None] == folds[None, :, None]
        fitted = _fit_validated(x, y, out, everything, num_classes)
    if basis is None:
        return fitted
    return torch.cat([basis[:, None] @ fitted[:, :, :-1], fitted[:, :, -1:]], dim=2)


def _fit(
    x: Tensor, y: Tensor, used: Bool[Tensor, "R F n"], c: int, penalty: float, start: Tensor | None
) -> Tensor:
    weight = used.to(x.dtype)
    rows = Rows(x, y, weight / weight.sum(2, keepdim=True))
    return fit_logistic(
        rows, c, penalty, start=start, max_iterations=_MAX_ITERATIONS, tolerance=_TOLERANCE
    )


def _fit_validated(
    x: Float[Tensor, "R n D"],
    y: Int[Tensor, "R n"],
    out: Bool[Tensor, "R F n"],
    everything: Bool[Tensor, "R 1 n"],
    num_classes: int,
) -> Float[Tensor, "R 1 D1 C"]:
    """For each draw, the fit to all rows with the penalty that is best on the rows left out."""
    used = torch.cat([~out, everything], dim=1)
    best, best_quality = None, torch.full((len(x),), -torch.inf, dtype=torch.float64)
    fitted = None
    for penalty in PENALTIES:
        fitted = _fit(x, y, used, num_classes, penalty, fitted)
        log_p = logits(x, fitted[:, :-1]).log_softmax(-1)
        loss = -log_p.gather(3, y[:, None, :, None].expand(*out.shape, 1))[..., 0]
        quality = -(loss * out).double().sum((1, 2))
        better = quality > best_quality
        best_quality = torch.where(better, quality, best_quality)
        fit = fitted[:, -1:]
        best = fit if best is None else torch.where(better[:, None, None, None], fit, best)
    assert best is not None
    return best
