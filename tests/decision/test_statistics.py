"""What test samples can tell: coverage, never certain when wrong, groups, labels saved."""

import numpy as np
import pytest
from scipy.stats import binomtest

from similitude.decision import statistics as st


def alone(n):
    return np.arange(n)


def flips(rng, rates, n):
    """Right or wrong of some ways on n samples, one draw, some samples harder than others."""
    hard = rng.normal(size=n)
    return {
        f"way {i}": (hard + rng.normal(size=n) < np.sqrt(2) * rate)[None]
        for i, rate in enumerate(rates)
    }


@pytest.mark.slow
def test_an_interval_covers_the_truth_where_draws_and_samples_vary():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        logit = 0.6 + 0.3 * rng.normal(size=(6, 1)) + rng.normal(size=(1, 80))
        noise = rng.normal(size=logit.shape)
        score = st.score_of(logit + noise > 0, alone(80))
        # P(0.6 + normal of variance 0.09 + 1 + 1 > 0)
        covered += score.low <= 0.6608 <= score.high
    assert 0.93 <= covered / 400 <= 0.995


def test_intervals_over_samples_alone_would_be_too_short():
    rng = np.random.default_rng(0)
    right = rng.random((8, 500)) < np.linspace(0.3, 0.7, 8)[:, None]  # much hangs on the draw
    one, many = st.score_of(right[:1], alone(500)), st.score_of(right, alone(500))
    assert one.high - one.low < 0.09 < 0.2 < many.high - many.low


def test_samples_of_one_film_are_not_independent():
    rng = np.random.default_rng(0)
    ours, theirs = (np.repeat(rng.random((1, 20)) < p, 30, axis=1) for p in (0.75, 0.5))
    films = np.repeat(np.arange(20), 30)
    by_frame, by_film = (st.difference(ours, theirs, u) for u in (alone(600), films))
    assert by_frame.mean == by_film.mean
    assert by_film.margin > 4 * by_frame.margin  # sqrt(30) but for the half units
    # twenty films once each are what twenty films in thirty frames are
    once = st.difference(ours[:, ::30], theirs[:, ::30], alone(20))
    assert once.margin == pytest.approx(by_film.margin, rel=1e-6)


def test_no_difference_at_all_on_a_few_samples_is_not_certain():
    same = np.ones((1, 12), bool)
    found = st.difference(same, same, alone(12))
    assert found.low < -0.05 < 0.05 < found.high


@pytest.mark.parametrize("only_ours", [5, 6, 7, 8, 10, 14])
def test_few_samples_are_judged_as_the_exact_test_of_mcnemar_does(only_ours):
    ours = np.arange(60)[None] < 30 + only_ours
    theirs = np.arange(60)[None] < 30
    is_certain = len(st.undecided({"a": ours, "b": theirs}, alone(60))) == 1
    exact = binomtest(only_ours, only_ours, alternative="greater").pvalue
    assert is_certain or exact > 0.01
    assert not is_certain or exact < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(0.5, 0.5, 0.5, 0.5, 0.5, 0.5), (0.6, 0.55, 0.5, 0.5)])
def test_the_best_is_among_the_undecided_in_19_of_20_splits(rates):
    rng = np.random.default_rng(1)
    kept = sum("way 0" in st.undecided(flips(rng, rates, 150), alone(150)) for _ in range(300))
    assert kept / 300 >= 0.95


@pytest.mark.slow
def test_a_clear_best_is_called_the_best():
    rng = np.random.default_rng(2)
    found = [st.undecided(flips(rng, (1.2, 0.5, 0.4, 0.0), 400), alone(400)) for _ in range(50)]
    assert found.count(["way 0"]) >= 48


def test_more_ways_ask_for_a_larger_difference():
    ours, theirs = (np.arange(200)[None] < n for n in (120, 114))
    two = {"a": ours, "b": theirs}
    assert st.undecided(two, alone(200)) == ["a"]
    many = two | {f"c{i}": np.zeros((1, 200), bool) for i in range(12)}
    assert st.undecided(many, alone(200)) == ["a", "b"]


def test_the_samples_that_are_said_to_be_needed_are_enough():
    rng = np.random.default_rng(3)
    ways = flips(rng, (0.7, 0.55), 100)
    found = st.above(ways["way 0"], ways["way 1"], alone(100))
    needed = st.samples_needed(found, 100, 0.05)
    copies = -(-needed // 100)
    more = {name: np.tile(right, copies) for name, right in ways.items()}
    assert st.undecided(more, alone(100 * copies)) == ["way 0"]
    assert copies == 1 or len(st.undecided(ways, alone(100))) == 2


def curve(rates, n=400, seed=0, draws=8):
    rng = np.random.default_rng(seed)
    last = max(rates)
    return {k: rng.random((1 if k == last else draws, n)) < p for k, p in rates.items()}


@pytest.mark.slow
def test_labels_saved_are_read_off_the_curve_on_a_logarithmic_axis():
    ours = curve({1: 0.4, 10: 0.6, 100: 0.8}, n=4000)
    theirs = curve({1: 0.2, 10: 0.4, 100: 0.6}, n=4000, seed=1)
    saved = st.labels_saved(ours, theirs, alone(4000))
    assert saved.labels == pytest.approx(90, abs=2)  # 0.6 is reached with 10 labels
    assert saved.low < 90 < saved.high
    assert saved.of == 100
    assert not saved.is_least


@pytest.mark.slow
def test_a_row_that_is_no_better_saves_nothing():
    ours = curve({1: 0.3, 10: 0.4, 100: 0.5}, n=4000)
    theirs = curve({1: 0.4, 10: 0.6, 100: 0.8}, n=4000, seed=1)
    saved = st.labels_saved(ours, theirs, alone(4000))
    assert saved.labels == saved.high == 0


def test_a_row_that_needs_fewer_than_the_fewest_says_at_least():
    ours = curve({1: 0.9, 10: 0.95, 100: 0.97})
    theirs = curve({1: 0.2, 10: 0.3, 100: 0.5}, seed=1)
    saved = st.labels_saved(ours, theirs, alone(400))
    assert saved.is_least
    assert saved.labels == 99
