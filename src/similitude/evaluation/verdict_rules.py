"""The rules of a verdict: each a function of the readings, its threshold a constant with a reason.

A rule yields what it has to say, one finding at most; of a reading that was not taken it says
nothing. A function and a line in ``RULES`` add one.
"""

import math
from collections.abc import Callable, Iterator

from similitude.evaluation.readings import Finding, Readings

# A std of a tenth of the healthy 1/sqrt(D) is out of reach of a code that carries information: with
# unit rows std^2 * D = 1 - |mean direction|^2, so it means that 99 % of every row is the same.
CONSTANT_STD = 0.1
# Healthy runs keep the spread of their projections or widen it; one that has lost half of what it
# once had, and whose features use few directions, has collapsed. BatchNorm at the projector's end
# hides this from CONSTANT_STD: in a batch of B the spread cannot fall below 2 / sqrt(B), which is
# one row against all others.
FALLEN_SHARE = 0.5
# One that has lost a third, and is as low at the end as it ever was, goes on falling. Others fall
# in their first steps and come back: DINO, InstDisc and MoCo end at 1.4 to 3 times their lowest.
FALLING_SHARE = 0.7
NEAR_LOWEST = 1.25  # single steps differ by so much
# Backbone features are often all positive (after ReLU or pooling), which alone makes 60 to 90 % of
# each row common; a third of the healthy value is unusual but not yet a failure.
LOW_STD = 0.2
# RankMe of one or two directions separates next to nothing, whatever the width.
COLLAPSED_RANK = 2.0
# Short healthy runs read 5 to 30 % of D; below 2 % or 5 directions nearly all of it is unused.
LOW_RANK = 5.0
LOW_RANK_SHARE = 0.02
# A loss within 1 % of the value of a constant code, after the first steps, has learned nothing: of
# the way from there down to 0, or to what smoothed labels leave of the loss at best.
CHANCE_MARGIN = 0.01
WARM_UP_STEPS = 100
# Targets of a network that distils itself carry information while they differ from image to image.
# Where all are one class, or all classes alike, the online network matches them at once (DINO,
# Fig. 7): their entropy is 0 or ln K and their divergence from it 0, each within 1 % of ln K.
TARGET_MARGIN = 0.01
# exp(entropy) counts the prototypes in use; below this a single one takes nearly every image.
FEWEST_PROTOTYPES = 1.5
# Fewer steps than this do not move a network far from its random weights.
FEW_STEPS = 100
# Below this, views of one image and views of different images are learned by heart. 239 images of
# blood cells were enough (docs/results.md, the first hour); fewer were not tried.
FEW_IMAGES = 200
# Steps of any method that learns turn weights by some per cent of their norm; below this nothing
# has reached them.
UNMOVED = 1e-3
# Changes of steps that have nothing in common add up as their squares do. Healthy runs read 0.001
# to 0.015 of the weights' norm for a step; at a hundred times the rate it is 0.06 to 0.3, and
# what is learned is lost in it.
NOISY_STEP = 0.05
LONG_RUN = 10_000  # steps; from here on weights may have turned that far on a straight way
# Where most images are copies of others, telling images apart means to tell copies apart.
COPIES_SHARE = 0.5
# Mean squared distance of two views of an image, of at most 4; drawn views have 0.05 and more.
SAME_VIEWS = 1e-6
# The run stops by itself above 10 % of unreadable files; from 1 % on the reader should know.
UNREADABLE_SHARE = 0.01


def _not_finite(r: Readings) -> Iterator[Finding]:
    loss_is_finite = r.loss is None or math.isfinite(r.loss)
    if r.nan_step is not None or not loss_is_finite:
        what = "The loss" if r.loss is None or not loss_is_finite else "A weight or feature"
        since = "" if r.nan_step is None else f" since step {r.nan_step}"
        yield Finding(
            "collapsed",
            f"{what} is not a number{since}.",
            "Lower the learning rate, lengthen the warm-up, or compute in float32 "
            "(--set precision=float32).",
        )


def _constant_features(r: Readings) -> Iterator[Finding]:
    if r.feature_std is None or r.feature_dim is None:
        return
    relative = r.feature_std * math.sqrt(r.feature_dim)
    numbers = (
        f"feature std {r.feature_std:.4f}, {relative:.2f} of the "
        f"1/sqrt({r.feature_dim:.0f}) = {1 / math.sqrt(r.feature_dim):.4f} of a healthy run"
    )
    start = math.inf if r.feature_std_start is None else r.feature_std_start
    # published networks may give all images a large part in common, and still tell them apart
    was_so = r.feature_std >= start if r.drift is None else r.feature_std >= FALLEN_SHARE * start
    if relative < CONSTANT_STD and was_so and (_is_early(r) or r.drift is not None):
        its = "random weights" if r.drift is None else "start"
        yield Finding(
            "doubtful",
            f"The backbone gives nearly the same features for every image, as its {its} did "
            f"({numbers}).",
            "Train longer.",
        )
    elif not relative >= CONSTANT_STD:
        yield Finding(
            "collapsed",
            f"The backbone gives nearly the same features for every image ({numbers}).",
            "Lower the learning rate. Where no others are pushed away, keep stop-gradient and "
            "predictor; where they are, use more of them (a larger batch or queue).",
        )
    elif relative < LOW_STD:
        yield Finding(
            "doubtful",
            f"The features of different images are unusually alike ({numbers}).",
            "Watch the feature std: if it goes on falling, lower the learning rate; if it rises, "
            "train longer.",
        )


def _constant_projections(r: Readings) -> Iterator[Finding]:
    if r.projection_std is None:
        return
    advice = (
        "Lower the learning rate, and keep what holds this method apart (stop-gradient and "
        "predictor, momentum target, centering and sharpening, BatchNorm in the heads)."
    )
    if r.projection_std < CONSTANT_STD:
        yield Finding(
            "collapsed",
            "The projections are nearly the same for every image (std "
            f"{r.projection_std:.3f} where 1 is healthy and 0 is constant).",
            advice,
        )
    elif r.projection_std_peak is not None:
        share = r.projection_std / r.projection_std_peak
        is_low = r.projection_std < NEAR_LOWEST * (r.projection_std_lowest or 0.0)
        if share < FALLEN_SHARE or (share < FALLING_SHARE and is_low and not _is_early(r)):
            few = r.effective_rank is not None and r.effective_rank < _fewest_directions(r)
            yield Finding(
                "collapsed" if few and share < FALLEN_SHARE else "doubtful",
                "The projections of different images have become alike (std fallen from "
                f"{r.projection_std_peak:.2f} to {r.projection_std:.2f}, where 1 is healthy).",
                advice,
            )


def _fewest_directions(r: Readings) -> float:
    """The effective rank below which a run is doubtful."""
    # A narrow backbone cannot have five directions to spare.
    width = r.feature_dim or math.inf
    return max(min(LOW_RANK, 0.25 * width), LOW_RANK_SHARE * (r.feature_dim or 0))


def _same_targets(r: Readings) -> Iterator[Finding]:
    if r.target_entropy is None or r.target_kl is None or r.chance_loss is None or _is_early(r):
        return
    margin = TARGET_MARGIN * r.chance_loss
    if r.target_kl > margin:
        return
    numbers = (
        f"target entropy {r.target_entropy:.3f} of {r.chance_loss:.3f}{_as_log(r.chance_loss)}, "
        f"divergence {r.target_kl:.3f}"
    )
    if r.target_entropy < margin:
        yield Finding(
            "collapsed",
            f"The target puts every image into the same class ({numbers}).",
            "Keep the centering (`--set method.centering=true`), and raise the temperature of the "
            "target a little if it is on.",
        )
    elif r.target_entropy > r.chance_loss - margin:
        yield Finding(
            "collapsed",
            f"The target finds all classes alike for every image ({numbers}).",
            "Lower the target's temperature (`--set method.target_temperature=0.04`): it must be "
            "below that of the online network.",
        )


def _one_prototype(r: Readings) -> Iterator[Finding]:
    if r.prototype_entropy is None or _is_early(r):
        return
    used = math.exp(r.prototype_entropy)
    if not used >= FEWEST_PROTOTYPES:
        yield Finding(
            "collapsed",
            f"Nearly all images have the same nearest prototype (as if {used:.1f} were in use).",
            "Keep Sinkhorn's assignments (`--set method.assignment=sinkhorn`) and the "
            "stop-gradient, lower epsilon to 0.03, freeze the prototypes for more steps, and lower "
            "the learning rate.",
        )


def _is_early(r: Readings) -> bool:
    return r.steps is not None and r.steps < WARM_UP_STEPS


def _low_rank(r: Readings) -> Iterator[Finding]:
    if r.effective_rank is None:
        return
    width = "" if r.feature_dim is None else f" of {r.feature_dim:.0f}"
    low = _fewest_directions(r)
    advice = (
        "Use stronger or more varied views, a wider projector or a larger batch, and lower the "
        "learning rate."
    )
    reason = f"The features use {r.effective_rank:.1f}{width} directions (effective rank)"
    if r.effective_rank < min(COLLAPSED_RANK, low):
        yield Finding("collapsed", f"{reason}: dimensional collapse.", advice)
    elif r.effective_rank < low:
        yield Finding("doubtful", f"{reason}, fewer than {low:.1f}.", advice)


def _loss_at_chance(r: Readings) -> Iterator[Finding]:
    if r.loss is None or r.chance_loss is None or not math.isfinite(r.loss) or _is_early(r):
        return
    if not r.loss < r.chance_loss - CHANCE_MARGIN * abs(r.chance_loss - (r.loss_floor or 0.0)):
        yield Finding(
            "doubtful",
            f"The loss equals chance: {r.loss:.3f} against {r.chance_loss:.3f}"
            f"{_as_log(r.chance_loss)} for a code without information.",
            "Check that the two views show the same image, raise the learning rate or lower the "
            "temperature, and train longer.",
        )


def _loss_below_its_floor(r: Readings) -> Iterator[Finding]:
    if r.loss is None or r.chance_loss is None or r.chance_loss <= 0:
        return
    floor = r.loss_floor or 0.0
    if r.loss < floor - CHANCE_MARGIN * (r.chance_loss - floor):
        yield Finding(
            "doubtful",
            f"The loss is {r.loss:.3f}, and this one cannot be below {floor:.3f}.",
            "Look for a sign that is turned, or a term that is missing, in the loss.",
        )


def _hardly_moved(r: Readings) -> Iterator[Finding]:
    if r.weight_change is not None and r.weight_change < UNMOVED and not _is_early(r):
        yield Finding(
            "doubtful",
            f"The backbone's weights are where they began ({100 * r.weight_change:.2g} % off).",
            "Check that gradients reach the backbone, and raise the learning rate.",
        )


def _thrown_about(r: Readings) -> Iterator[Finding]:
    if r.weight_change is None or r.steps is None or not WARM_UP_STEPS <= r.steps < LONG_RUN:
        return
    if not r.weight_change < NOISY_STEP * math.sqrt(r.steps):
        yield Finding(
            "doubtful",
            f"Training turned the backbone's weights by {r.weight_change:.1f} times their norm in "
            f"{r.steps:.0f} steps, as noise does.",
            "Lower the learning rate tenfold or more.",
        )


def _copies(r: Readings) -> Iterator[Finding]:
    if r.copies is not None and r.copies > COPIES_SHARE:
        yield Finding(
            "doubtful",
            f"{100 * r.copies:.0f} % of the images are copies of others.",
            "Remove the copies: a method that tells images apart learns to tell copies apart.",
        )


def _same_views(r: Readings) -> Iterator[Finding]:
    if r.alignment is not None and r.alignment < SAME_VIEWS:
        yield Finding(
            "doubtful",
            "The two views of an image have the same features.",
            "Check that the views change the image: crops, flips, color.",
        )


def _as_log(chance: float) -> str:
    """Text that names K where the chance level is the log of a whole number, else empty."""
    if not 0 < chance < math.log(2e6):  # of two losses together it is that of no whole number
        return ""
    k = round(math.exp(chance))
    return f" = ln {k}" if abs(k / math.exp(chance) - 1) < 1e-6 and k > 1 else ""


def _is_clearly_below(knn: float, other: float, queries: float | None) -> bool:
    """Whether a kNN accuracy is below another by more than so few images leave to chance."""
    spread = knn * (1 - knn) + other * (1 - other)
    return knn < other - (spread / max(1.0, queries or math.inf)) ** 0.5


def _worse_than_its_start(r: Readings) -> Iterator[Finding]:
    if r.drift is None or r.knn is None or r.knn_random is None:
        return
    if _is_clearly_below(r.knn, r.knn_random, r.knn_queries):
        yield Finding(
            "doubtful",
            f"Among training samples kNN accuracy is {100 * r.knn:.1f} %, below the "
            f"{100 * r.knn_random:.1f} % of the weights it started from.",
            "Use the published weights as they are, or stay nearer to them "
            "(--set init.average=0.75, --set init.frozen=0.8).",
        )


def _worse_than_raw_pixels(r: Readings) -> Iterator[Finding]:
    if r.knn is None or r.knn_raw is None:
        return
    if _is_clearly_below(r.knn, r.knn_raw, r.knn_queries):
        begin = (
            "Start from published weights (--init), or train longer. " if r.drift is None else ""
        )
        yield Finding(
            "doubtful",
            f"Among training samples kNN accuracy is {100 * r.knn:.1f} %, below the "
            f"{100 * r.knn_raw:.1f} % of raw pixels.",
            f"{begin}Choose views that keep what distinguishes the classes.",
        )


def _no_better_than_random(r: Readings) -> Iterator[Finding]:
    if r.knn is None or r.knn_random is None or r.drift is not None:
        return
    if r.knn <= r.knn_random:
        yield Finding(
            "doubtful",
            f"Among training samples kNN accuracy is {100 * r.knn:.1f} %, not above the "
            f"{100 * r.knn_random:.1f} % of the same backbone with random weights.",
            "Train longer, or choose views that keep what distinguishes the classes (milder crops "
            "and color changes).",
        )


def _too_short(r: Readings) -> Iterator[Finding]:
    if r.steps is not None and r.steps < FEW_STEPS:
        much = f"{math.ceil(FEW_STEPS / r.steps)} times as long" if r.steps else "an epoch"
        yield Finding(
            "doubtful",
            f"The run had only {r.steps:.0f} steps; fewer than {FEW_STEPS} hardly move a network.",
            f"Train at least {much} (--epochs).",
        )


def _too_few_images(r: Readings) -> Iterator[Finding]:
    if r.num_images is not None and r.num_images < FEW_IMAGES:
        yield Finding(
            "doubtful",
            f"The data set has only {r.num_images:.0f} images; fewer than {FEW_IMAGES} are learned "
            "by heart.",
            "Add images: they need no labels.",
        )


def _unreadable(r: Readings) -> Iterator[Finding]:
    if r.unreadable_share is not None and r.unreadable_share > UNREADABLE_SHARE:
        yield Finding(
            "doubtful",
            f"{100 * r.unreadable_share:.1f} % of the files could not be read.",
            "Look at unreadable.txt in the run folder and repair or remove those files.",
        )


RULES: tuple[Callable[[Readings], Iterator[Finding]], ...] = (
    _not_finite,
    _worse_than_its_start,
    _worse_than_raw_pixels,
    _constant_features,
    _constant_projections,
    _same_targets,
    _one_prototype,
    _low_rank,
    _loss_at_chance,
    _loss_below_its_floor,
    _hardly_moved,
    _thrown_about,
    _same_views,
    _copies,
    _no_better_than_random,
    _too_short,
    _too_few_images,
    _unreadable,
)
