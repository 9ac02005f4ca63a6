from statistics import fmean

import pytest
import torch

from similitude.errors import UserError
from similitude.evaluation import Features, few_label_accuracies, few_label_skips
from similitude.evaluation import few_labels as few_labels_module
from similitude.evaluation.draws import held_out, random_keys, rank_within_class
from similitude.evaluation.scores import mean_score


@pytest.mark.slow
def test_more_labels_give_a_higher_score_and_a_narrower_interval(
    digits: tuple[Features, Features],
) -> None:
    found = few_label_accuracies(*digits, labels_per_class=(1, 5, 10, 60), draws=6)
    scores = {k: mean_score(accuracies) for k, accuracies in found.items()}
    means = [scores[k].mean for k in (1, 5, 10, 60)]
    assert means == sorted(means)
    assert 0.3 < means[0] < 0.75
    assert means[3] > 0.9
    for score in scores.values():
        assert score.draws == 6
        assert score.low is not None
        assert score.high is not None
        assert score.low < score.mean < score.high
        assert score.mean - score.low == pytest.approx(score.high - score.mean)


@pytest.mark.slow
def test_all_backbones_meet_the_same_labeled_samples(
    digits: tuple[Features, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draws are recovered from the rows that are fitted: the number of a row is a feature."""
    train, test = digits
    fitted = []
    monkeypatch.setattr(few_labels_module, "_normalized", lambda x, mean, std: x)
    monkeypatch.setattr(few_labels_module.F, "normalize", lambda x, dim: x)
    fit_draws = few_labels_module._fit_draws

    def spy(x: torch.Tensor, *args: object) -> torch.Tensor:
        fitted.append(x[:, :, 0].long())
        return fit_draws(x, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(few_labels_module, "_fit_draws", spy)
    number = torch.arange(len(train)).float()[:, None]
    for width in (2, 30):
        noise = torch.randn(len(train), width)
        x = torch.cat([number, noise], dim=1)
        other = Features(torch.randn(len(test), width + 1), test.y, test.names)
        few_label_accuracies(Features(x, train.y, train.names), other, (2, 4), draws=3)
    assert torch.equal(fitted[0], fitted[2])
    assert torch.equal(fitted[1], fitted[3])
    assert train.y is not None
    for small, large in zip(fitted[0].tolist(), fitted[1].tolist(), strict=True):
        assert set(small) < set(large)  # k = 2 is part of k = 4
    assert len({tuple(draw) for draw in fitted[1].tolist()}) == 3  # and the draws differ
    counts = train.y[fitted[1][0]].bincount()
    assert counts.tolist() == [4] * 10


@pytest.mark.slow
def test_labels_of_the_test_part_are_only_compared(digits: tuple[Features, Features]) -> None:
    train, test = digits
    assert test.y is not None
    right = fmean(few_label_accuracies(train, test, (5,), draws=2)[5])
    wrong = Features(test.x, (test.y + 1) % 10, test.names)
    assert fmean(few_label_accuracies(train, wrong, (5,), draws=2)[5]) < (1 - right) + 1e-9


@pytest.mark.slow
def test_solution_in_the_span_of_the_rows_is_the_whole_solution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With fewer rows than features the problem is solved in n coordinates; nothing is lost."""
    from similitude.evaluation.logistic import Rows, fit_logistic

    monkeypatch.setattr(few_labels_module, "_TOLERANCE", 1e-20)
    x = torch.randn(2, 12, 40).double()
    y = (torch.arange(12) % 3).expand(2, -1)
    found = few_labels_module._fit_draws(x, y, torch.zeros_like(y), 3, k=4)
    rows = Rows(x, y, torch.full((2, 1, 12), 1 / 12, dtype=torch.float64))
    full = fit_logistic(
        rows, 3, few_labels_module.FIXED_PENALTY, max_iterations=500, tolerance=1e-20
    )
    torch.testing.assert_close(found, full, rtol=0, atol=1e-6)


def test_the_penalty_is_chosen_for_each_draw_by_the_rows_left_out() -> None:
    """One draw of pure noise features, one of clean ones: each gets the penalty that suits it."""
    y = torch.arange(60) % 3
    noise = torch.randn(60, 50)
    clean = torch.zeros(60, 50)
    clean[torch.arange(60), y] = 3.0
    clean += 0.3 * torch.randn(60, 50)
    fold = rank_within_class(torch.rand(60), y) % 5
    found = few_labels_module._fit_draws(
        torch.stack([noise, clean]), y.expand(2, -1), fold.expand(2, -1), 3, k=20
    )
    size = found[:, 0, :-1].square().sum((1, 2))
    assert size[0] < 0.5  # held back by the strongest penalty
    assert size[1] > 2 * size[0]


@pytest.mark.slow
def test_a_class_with_too_few_samples_skips_the_column_and_says_why(
    digits: tuple[Features, Features],
) -> None:
    train, test = digits
    assert train.y is not None
    keep = (train.y != 3) | (torch.cumsum(train.y == 3, 0) <= 7)
    small = train.subset(keep)
    assert small.y is not None
    assert set(few_label_accuracies(small, test, (1, 5, 8), draws=2)) == {1, 5}
    assert few_label_skips(small.y, (1, 5, 8)) == {
        8: "No column for 8 labels per class: class 3 has only 7 labeled training samples."
    }
    assert few_label_skips(small.y, (7,)) == {}
    names = ["zero", "one", "two", "three", *"456789"]
    assert "class 'three' has only 7" in few_label_skips(small.y, (8,), names)[8]


@pytest.mark.slow
def test_rows_without_a_label_are_never_drawn(digits: tuple[Features, Features]) -> None:
    train, test = digits
    assert train.y is not None
    y = train.y.clone()
    y[400:] = -1
    hidden = Features(train.x, y, train.names)
    counts = y[y >= 0].bincount()
    most = int(counts.min())
    assert set(few_label_accuracies(hidden, test, (most, most + 1), draws=2)) == {most}


def test_bad_input_is_told_in_a_sentence(digits: tuple[Features, Features]) -> None:
    train, test = digits
    with pytest.raises(UserError, match="need labels"):
        few_label_accuracies(Features(train.x, None, train.names), test)
    with pytest.raises(UserError, match="at least 1"):
        few_label_accuracies(train, test, draws=0)
    with pytest.raises(UserError, match="two classes"):
        few_label_accuracies(
            Features(train.x, torch.zeros(len(train), dtype=torch.int64), train.names), test, (1,)
        )


def test_held_out_part_is_stratified_and_leaves_every_class_a_row() -> None:
    y = torch.tensor([0] * 100 + [1] * 10 + [2] * 2 + [3])
    out = held_out(y, 0.2, seed=0)
    assert y[out].bincount(minlength=4).tolist() == [20, 2, 1, 0]
    assert torch.equal(out, held_out(y, 0.2, seed=0))
    assert not torch.equal(out, held_out(y, 0.2, seed=1))


def test_rank_within_class_counts_by_key() -> None:
    y = torch.tensor([1, 0, 1, 0, 1])
    keys = torch.tensor([0.5, 0.9, 0.1, 0.2, 0.5])
    assert rank_within_class(keys, y).tolist() == [1, 1, 0, 0, 2]


def test_keys_depend_on_seed_draw_and_purpose_only() -> None:
    a = random_keys(0, 0, 100, "x")
    assert torch.equal(a[:50], random_keys(0, 0, 50, "x"))
    for other in (random_keys(1, 0, 100, "x"), random_keys(0, 1, 100, "x")):
        assert not torch.equal(a, other)


@pytest.mark.parametrize("one_scale", [True, False])
def test_rare_words_drown_the_rest_unless_columns_share_a_scale(one_scale):
    """Two common words tell the classes; each of 400 others occurs in few rows, by chance."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 2
    words = (torch.rand(200, 400, generator=rng) < 0.02).float()
    parts = torch.cat([torch.nn.functional.one_hot(y, 2), words], dim=1)
    names = [str(i) for i in range(200)]
    rows = Features(parts, y, names, one_scale)
    found = few_label_accuracies(rows.subset(range(100)), rows.subset(range(100, 200)), (5,))
    mean = sum(found[5]) / len(found[5])
    assert mean > 0.95 if one_scale else mean < 0.7
