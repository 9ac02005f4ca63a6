"""What test samples, and draws of labels, can tell of several ways: pure functions.

Letters: R draws of labels, N test samples, K ways, k labels per class, B resamplings. ``right``
says for each draw and test sample whether the class was found, [R, N]; R is 1 where all labels are
used. ``units`` gives each test sample the number of what it belongs to, [N]: samples of one unit
(crops of one slide, frames of one film) are not independent; alone each is a unit of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import stdtrit

from similitude.evaluation.comparison import Difference
from similitude.evaluation.scores import Score

ERROR = 0.05  # probability that the best way is not among those that are called undecided
RESAMPLINGS = 500

Right = Shaped[np.ndarray, "_ N"]  # columns of one row differ in R
Units = Int[np.ndarray, " N"]


@dataclass(frozen=True)
class Estimate:
    """A mean over draws and test samples.

    Attributes:
        mean: Of all.
        center: Of its intervals: the mean, drawn towards 0 as by two samples more.
        error: Standard error.
        degrees: Of freedom of Student's t.
    """

    mean: float
    center: float
    error: float
    degrees: float

    def reach(self, error: float) -> float:
        """How far chance carries the mean to one side, exceeded with this probability."""
        return float(stdtrit(self.degrees, 1 - error)) * self.error


def estimate(values: Float[np.ndarray, "R N"], units: Units) -> Estimate:
    """The mean of values that depend on a draw of labels and on a test sample, both by chance.

    Draws and units are crossed random factors, so that the variance of the mean is that of the
    means of the draws over R plus that of the sums of the units::

        V = V_draws + V_units
        V_draws = sum_r (mean_r - mean)^2 / (R (R - 1))
        V_units = G / (G - 1) (sum_g S_g^2 + m^2) / (N + 2 m)^2,   S_g = sum_{i in g} (v_i - mean)

    with v_i the mean of sample i over the draws, G units and m = N / G. It counts what draw and
    sample do together twice, and is a little too large rather than too small (Owen 2007, "The
    pigeonhole bootstrap", Sec. 4). Sums over units make it that of a sample of units (Cameron and
    Miller 2015, eq. 11). m^2 and 2 m are half a unit in each of four outcomes (Agresti and Min
    2005): no difference at all on a few samples is not taken for certain. Degrees of freedom are
    Satterthwaite's (1946) of the two parts.

    Args:
        values: Of each draw and sample: 0 or 1, or a difference of such.
        units: Of each sample.
    """
    draws, samples = values.shape
    mean, each = float(values.mean()), values.mean(0)
    sums = np.bincount(np.unique(units, return_inverse=True)[1], weights=each - mean)
    count = len(sums)
    size = samples / count
    of_units = (np.square(sums).sum() + size**2) / (samples + 2 * size) ** 2
    of_units *= count / max(1, count - 1)
    of_draws = float(values.mean(1).var(ddof=1)) / draws if draws > 1 else 0.0
    total = of_units + of_draws
    parts = of_units**2 / max(1, count - 1) + of_draws**2 / max(1, draws - 1)
    center = mean * samples / (samples + 2 * size)
    return Estimate(mean, center, math.sqrt(total), total**2 / parts)


def score_of(right: Right, units: Units) -> Score:
    """An accuracy with its 95 % interval over draws and test samples, within 0..1."""
    found = estimate(right.astype(float), units)
    reach = found.reach(0.025)
    low, high = max(0.0, found.mean - reach), min(1.0, found.mean + reach)
    return Score(found.mean, low, high, len(right))


def above(ours: Right, theirs: Right, units: Units) -> Estimate:
    """How far one accuracy is above another one, of the same draws and test samples."""
    return estimate(ours.astype(float) - theirs.astype(float), units)


def difference(ours: Right, theirs: Right, units: Units, error: float = ERROR / 2) -> Difference:
    """The same as an interval; ``error`` is left at each end, 2.5 % if not given."""
    found = above(ours, theirs, units)
    reach = found.reach(error)
    return Difference(found.mean, found.center - reach, found.center + reach)


def error_each(ways: int) -> float:
    """What one comparison among K ways may err, so that the best is lost with 5 % at most."""
    return ERROR / max(1, ways - 1)


def undecided(ways: Mapping[str, Right], units: Units) -> list[str]:
    """The ways that no other one is above for sure: the best is among them with 95 %.

    A way leaves if another is above it by more than one-sided t at ``ERROR / (K - 1)``. The truly
    best, whichever it is, is compared with K - 1 others, so it leaves with at most ``ERROR``
    (Bonferroni): selection of a subset with the best (Gupta 1965), and what multiple comparisons
    with the best come to (Hsu 1984). That the highest of K is picked by the same samples is thereby
    paid for. One way alone is called the best for sure.

    Args:
        ways: Of each, on the same draws and samples.
        units: Of each sample.
    """
    error = error_each(len(ways))

    def is_beaten(name: str) -> bool:
        others = (above(right, ways[name], units) for other, right in ways.items() if other != name)
        return any(found.center > found.reach(error) for found in others)

    return [name for name in ways if not is_beaten(name)]


def samples_needed(found: Estimate, samples: int, error: float) -> int | None:
    """Test samples with which so large a difference would be told; None where there is none."""
    if found.mean <= 0:
        return None
    return math.ceil(samples * (found.reach(error) / found.mean) ** 2)


@dataclass(frozen=True)
class Saved:
    """Labels per class that one row saves against all that another one uses.

    Attributes:
        labels: Per class.
        low: 2.5 % of the resamplings are below.
        high: 2.5 % are above.
        of: Labels per class that the other row uses.
        is_least: Whether the fewest labels that were tried are enough already.
    """

    labels: float
    low: float
    high: float
    of: float
    is_least: bool


def labels_saved(
    ours: Mapping[float, Right], theirs: Mapping[float, Right], units: Units, seed: int = 0
) -> Saved:
    """How many labels per class a row saves: with how many fewer it is as accurate as the other.

    Its accuracy between two numbers of labels is linear in their logarithm, and never falls with
    more labels. The interval is of the pigeonhole bootstrap (Owen 2007): draws and units are drawn
    again with replacement, the same for both rows and all numbers of labels; percentiles.

    Args:
        ours: Labels per class -> right or wrong; the draws of all columns with several are nested.
        theirs: The same columns; the largest is what the other row needs.
        units: Of each test sample.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    numbers = sorted(ours.keys() & theirs.keys())
    units = np.unique(units, return_inverse=True)[1]
    count, draws = int(units.max()) + 1, max(len(ours[k]) for k in numbers)
    of_units = rng.multinomial(count, np.full(count, 1 / count), RESAMPLINGS)
    of_draws = rng.multinomial(draws, np.full(draws, 1 / draws), RESAMPLINGS)
    # the first is what was found, each counted once
    samples = np.vstack([np.ones(count), of_units])[:, units]
    weights = np.vstack([np.ones(draws), of_draws])

    def curve(columns: Mapping[float, Right]) -> Float[np.ndarray, "B k"]:
        found = []
        for k in numbers:
            right = columns[k].astype(float)
            each = samples @ right.T / samples.sum(1, keepdims=True)  # [B, R]
            found.append(each[:, 0] if len(right) == 1 else (each * weights).sum(1) / draws)
        return np.maximum.accumulate(np.stack(found, 1), axis=1)

    mine, target = curve(ours), curve(theirs)[:, -1]
    steps = np.log(numbers)
    needed = [np.exp(np.interp(t, line, steps)) for t, line in zip(target, mine, strict=True)]
    saved = np.maximum(numbers[-1] - np.array(needed), 0.0)  # not a rounding below it
    low, high = np.percentile(saved[1:], [2.5, 97.5])
    is_least = bool(target[0] <= mine[0, 0])
    return Saved(float(saved[0]), float(low), float(high), float(numbers[-1]), is_least)
