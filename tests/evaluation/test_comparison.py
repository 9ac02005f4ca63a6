"""Rows beside each other: the intervals of paired differences, and what is said of them."""

import math
import random
import statistics
from itertools import product

import pytest
from scipy import stats

from similitude.evaluation.comparison import (
    BEFORE_TRAINING,
    PRETRAINED_BACKBONE,
    RANDOM_BACKBONE,
    RAW_PIXELS,
    Comparison,
    Difference,
    compare,
    difference_of_draws,
    difference_of_shares,
    losses,
    sentences,
)

TITLES = {"knn": "kNN", "linear": "linear", "linear_5": "5 labels/class"}.__getitem__
UP, DOWN, OPEN = (Difference(mean, mean - 0.01, mean + 0.01) for mean in (0.031, -0.021, 0.004))


def test_shares_of_many_images_have_the_normal_interval_of_their_differences() -> None:
    each = [1] * 700 + [-1] * 500 + [0] * 8800
    half = 1.959964 * statistics.stdev(each) / math.sqrt(len(each))
    found = difference_of_shares(700, 500, 10_000)
    assert found.mean == pytest.approx(0.02)
    assert found.low == pytest.approx(0.02 - half, abs=2e-5)
    assert found.high == pytest.approx(0.02 + half, abs=2e-5)
    assert found.is_above


def test_no_difference_on_few_images_is_not_certain() -> None:
    found = difference_of_shares(0, 0, 60)
    assert found.mean == 0
    assert found.low is not None
    assert found.high is not None
    assert found.low == pytest.approx(-found.high)
    assert found.high > 0.02


@pytest.mark.slow
def test_the_interval_of_shares_covers_the_truth_in_95_of_100_tests() -> None:
    """Rows that agree on most images: of independent shares the interval would be far too wide."""
    dice, n, ours, theirs = random.Random(0), 200, 0.12, 0.05
    covered, tests = 0, 2000
    for _ in range(tests):
        drawn = [dice.random() for _ in range(n)]
        only_ours = sum(d < ours for d in drawn)
        only_theirs = sum(ours <= d < ours + theirs for d in drawn)
        found = difference_of_shares(only_ours, only_theirs, n)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= ours - theirs <= found.high
    assert 0.935 < covered / tests < 0.97


def test_draws_have_students_interval_of_their_differences() -> None:
    ours, theirs = [0.61, 0.58, 0.70, 0.64], [0.55, 0.57, 0.66, 0.60]
    found = difference_of_draws(ours, theirs)
    each = [a - b for a, b in zip(ours, theirs, strict=True)]
    low, high = stats.t.interval(0.95, 3, loc=statistics.fmean(each), scale=stats.sem(each))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert difference_of_draws([0.75], [0.5]) == Difference(0.25)


def test_what_is_not_told_apart_is_neither_above_nor_below() -> None:
    assert (UP.is_above, UP.is_below) == (True, False)
    assert (DOWN.is_above, DOWN.is_below) == (False, True)
    assert (OPEN.is_above, OPEN.is_below) == (False, False)
    # without an interval, as in files of earlier versions, the mean decides
    assert (Difference(0.01).is_above, Difference(-0.01).is_below) == (True, True)


def test_numbers_are_in_points_with_their_margin() -> None:
    assert UP.to_text() == "+3.1 ± 1.0"
    assert DOWN.to_text() == "-2.1 ± 1.0"
    assert Difference(-0.021).to_text() == "-2.1"


def test_rows_are_told_in_the_order_of_their_weight() -> None:
    rows = [RAW_PIXELS, RANDOM_BACKBONE, BEFORE_TRAINING, "timm:b", "timm:a", PRETRAINED_BACKBONE]
    means = {row: {"knn": 0.5, "linear": 0.6} for row in rows}
    found = compare(means, ["knn", "linear"], {RAW_PIXELS: {"knn": UP}})
    assert [c.row for c in found] == [
        BEFORE_TRAINING,
        RAW_PIXELS,
        "timm:b",
        "timm:a",
        RANDOM_BACKBONE,
    ]
    assert found[1].differences == {"knn": UP, "linear": Difference(0.0)}


def test_a_run_that_wins_everywhere_is_told_in_one_sentence() -> None:
    both = {"knn": Difference(0.1, 0.05, 0.15), "linear": UP}
    found = [Comparison(RAW_PIXELS, both), Comparison(RANDOM_BACKBONE, both)]
    assert sentences(found, TITLES, 300) == [
        "The pretrained backbone is above raw pixels (linear +3.1 ± 1.0) and the random backbone "
        "(linear +3.1 ± 1.0) in every column."
    ]


@pytest.mark.parametrize("row", [BEFORE_TRAINING, RAW_PIXELS])
def test_a_run_that_is_worse_says_so_first_and_what_to_do(row: str) -> None:
    differences = {
        BEFORE_TRAINING: {"knn": UP, "linear": UP},
        RAW_PIXELS: {"knn": UP, "linear": UP},
        "timm:a": {"knn": DOWN, "linear": DOWN},
    } | {row: {"knn": DOWN, "linear": Difference(-0.004, -0.014, 0.006)}}
    means = {r: {"knn": 0.5, "linear": 0.5} for r in (*differences, PRETRAINED_BACKBONE)}
    first, second, *others = sentences(compare(means, ["knn", "linear"], differences), TITLES, 300)
    name = {BEFORE_TRAINING: "the weights it started from"}.get(row, row)
    start = (
        f"The pretrained backbone scores less than {name}: kNN -2.1 ± 1.0 and linear -0.4 ± 1.0."
    )
    assert first.startswith(start)
    assert "rain longer, or choose views" in first
    assert ("Use these weights as they are" in first) == (row == BEFORE_TRAINING)
    assert second == (
        "It scores less than timm:a: kNN -2.1 ± 1.0 and linear -2.1 ± 1.0. Use it as it is, or "
        "train from it."
    )
    assert len(others) == 2  # what it is above, and what so few images can show
    assert others[-1] == (
        "On 300 test images kNN and linear can show differences from about 1.0 points on."
    )


def test_a_run_that_is_worse_everywhere_is_told_with_one_number() -> None:
    found = [Comparison(RAW_PIXELS, {"knn": DOWN, "linear": DOWN, "linear_5": DOWN})]
    assert sentences(found, TITLES, 300)[0].startswith(
        "The pretrained backbone scores less than raw pixels in every column (linear -2.1 ± 1.0). "
    )


def test_one_column_that_is_worse_is_named_alone() -> None:
    scored = {"knn": DOWN, "linear": UP, "linear_5": OPEN}
    found = [Comparison(RAW_PIXELS, scored, is_plain=True)]
    first, second, _ = sentences(found, TITLES, 300)
    assert first.startswith("The pretrained backbone is below raw pixels in kNN -2.1 ± 1.0. Train")
    assert second == "It cannot be told apart from raw pixels in 5 labels/class."


def test_what_chance_decides_is_no_win() -> None:
    some = [Comparison(BEFORE_TRAINING, {"knn": OPEN, "linear": UP})]
    assert sentences(some, TITLES, None) == [
        "The pretrained backbone is above the weights it started from (linear +3.1 ± 1.0), but not "
        "for sure in kNN +0.4 ± 1.0."
    ]
    none = [Comparison("timm:a", {"knn": OPEN, "linear": OPEN})]
    assert sentences(none, TITLES, None) == [
        "The pretrained backbone cannot be told apart from timm:a in any column (linear +0.4 ± "
        "1.0)."
    ]
    worse = [Comparison("timm:a", {"knn": Difference(-0.004, -0.014, 0.006)})]
    assert sentences(worse, TITLES, None) == [
        "The pretrained backbone is no better than timm:a: kNN -0.4 ± 1.0. Use it as it is, or "
        "train from it."
    ]


@pytest.mark.slow
def test_every_row_is_told_once_whatever_the_differences() -> None:
    for kinds in product((UP, DOWN, OPEN, Difference(0.0)), repeat=3):
        rows = (BEFORE_TRAINING, RAW_PIXELS, RANDOM_BACKBONE)
        found = [
            Comparison(row, dict(zip(("knn", "linear", "linear_5"), kinds, strict=True)))
            for row in rows
        ]
        said = sentences(found, TITLES, 300)
        assert said[0].startswith("The pretrained backbone ")
        for name in ("weights it started from", "raw pixels", "random backbone"):
            assert any(name in sentence for sentence in said)
        assert len(losses(found, TITLES)) == (3 if found[0].loses else 0)
        assert sum("rain longer" in sentence for sentence in said) == found[0].loses


def test_nothing_beside_it_is_nothing_to_say() -> None:
    assert sentences(compare({PRETRAINED_BACKBONE: {"knn": 0.5}}, ["knn"], {}), TITLES, 10) == []
