import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from similitude.errors import UserError
from similitude.evaluation import Features, LinearProbe
from similitude.evaluation.linear import standardization


def sklearn_probe(x: torch.Tensor, y: torch.Tensor, penalty: float) -> LogisticRegression:
    scaled = StandardScaler().fit_transform(x.numpy())
    model = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=5000)
    return model.fit(scaled, y.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_equals_scikit_learn_at_the_same_penalty(
    digits: tuple[Features, Features], penalty: float
) -> None:
    train, test = digits
    assert train.y is not None
    x = train.x.double()
    probe = LinearProbe([penalty], max_iterations=1000, tolerance=1e-14).fit(x, train.y)
    reference = sklearn_probe(x, train.y, penalty)
    expected = reference.predict_proba(StandardScaler().fit(x.numpy()).transform(test.x.numpy()))
    found = probe.decision(test.x.double()).softmax(1)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    np.testing.assert_allclose(probe.weight_.T.numpy(), reference.coef_, atol=2e-3)
    assert probe.penalty_ == penalty
    assert probe.validation_score_ is None


@pytest.mark.slow
def test_float32_at_the_default_tolerance_has_the_accuracy_of_the_exact_solution(
    digits: tuple[Features, Features],
) -> None:
    train, test = digits
    assert train.y is not None
    assert test.y is not None
    exact = sklearn_probe(train.x.double(), train.y, 1e-3)
    z = StandardScaler().fit(train.x.numpy()).transform(test.x.numpy())
    found = LinearProbe([1e-3]).fit(train.x, train.y).score(test.x, test.y)
    assert found == pytest.approx(exact.score(z, test.y.numpy()), abs=0.006)


@pytest.mark.slow
def test_chooses_the_penalty_on_training_rows_and_refits_on_all(
    digits: tuple[Features, Features],
) -> None:
    train, test = digits
    assert train.y is not None
    probe = LinearProbe(tolerance=1e-9, max_iterations=500).fit(train.x.double(), train.y)
    assert probe.validation_score_ is not None
    assert 0.9 < probe.validation_score_ <= 1
    assert probe.score(test.x.double(), test.y) > 0.9
    # The refit is the fit to all rows with the chosen penalty.
    direct = LinearProbe([probe.penalty_], tolerance=1e-9, max_iterations=500)
    direct.fit(train.x.double(), train.y)
    torch.testing.assert_close(probe.weight_, direct.weight_, rtol=0, atol=1e-2)


@pytest.mark.slow
def test_noise_asks_for_a_strong_penalty_and_signal_for_a_weak_one() -> None:
    y = torch.arange(300) % 3
    noise = torch.randn(300, 200)
    noise[:, 0] += 2.0 * y  # one useful feature among 200
    signal = torch.randn(3000, 5)
    wide = (signal[:, :3] * 50).argmax(1)  # exactly separable: the weaker the better
    assert LinearProbe().fit(noise, y).penalty_ >= 0.1
    assert LinearProbe().fit(signal, wide).penalty_ <= 1e-4


def test_no_row_of_the_held_out_part_reaches_the_choice(
    digits: tuple[Features, Features], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poison the rows that are held out: the fits that are compared must not change."""
    import similitude.evaluation.linear as linear

    train, _ = digits
    assert train.y is not None
    out = linear.held_out(train.y, 0.1, 0)
    seen = []
    fit_logistic = linear.fit_logistic

    def spy(rows: linear.Rows, *args: object, **kwargs: object) -> torch.Tensor:
        seen.append(rows.x[0])
        return fit_logistic(rows, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(linear, "fit_logistic", spy)
    poisoned = train.x.clone()
    poisoned[out] = 1e6
    LinearProbe([1.0, 0.1]).fit(poisoned, train.y)
    assert [len(x) for x in seen] == [int((~out).sum())] * 2 + [len(train)]
    assert seen[0].mean(0).abs().max() < 1e-4  # standardized by its own statistics
    assert 0.08 < out.float().mean() < 0.12


@pytest.mark.slow
@pytest.mark.parametrize("holdout", [0.1, 0.5])
def test_scaling_and_shifting_features_changes_nothing(
    digits: tuple[Features, Features], holdout: float
) -> None:
    train, test = digits
    assert train.y is not None
    x, queries = train.x.double(), test.x.double()
    scale = torch.logspace(-3, 3, 64).double()
    shift = 100 * torch.randn(64).double()
    options = {"penalties": (1.0, 0.1, 0.01), "tolerance": 1e-10, "max_iterations": 500}
    plain = LinearProbe(holdout=holdout, **options).fit(x, train.y)
    moved = LinearProbe(holdout=holdout, **options).fit(x * scale + shift, train.y)
    assert moved.penalty_ == plain.penalty_
    torch.testing.assert_close(
        moved.decision(queries * scale + shift), plain.decision(queries), rtol=0, atol=1e-3
    )


def test_standardization_survives_a_large_offset_and_constant_features() -> None:
    x = torch.randn(20_000, 3)
    x[:, 1] = 0.1
    x[:, 2] = x[:, 2] + 1000
    mean, std = standardization(x)
    assert std[1] == 1
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean(0), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(std[[0, 2]].double(), exact.std(0)[[0, 2]], rtol=1e-4, atol=0)


@pytest.mark.slow
def test_same_seed_same_result_and_labels_of_any_value(digits: tuple[Features, Features]) -> None:
    train, test = digits
    assert train.y is not None
    first = LinearProbe(seed=3).fit(train.x, train.y)
    again = LinearProbe(seed=3).fit(train.x, train.y * 7 + 2)
    assert torch.equal(first.weight_, again.weight_)
    assert torch.equal(first.predict(test.x) * 7 + 2, again.predict(test.x))


def test_rows_without_a_label_are_left_out(digits: tuple[Features, Features]) -> None:
    train, _ = digits
    assert train.y is not None
    half = train.subset(range(600))
    masked = train.y.clone()
    masked[600:] = -1
    a = LinearProbe([0.1]).fit(train.x, masked)
    b = LinearProbe([0.1]).fit(half.x, half.y)
    assert torch.equal(a.weight_, b.weight_)


def test_bad_input_is_told_in_a_sentence() -> None:
    x = torch.randn(6, 2)
    with pytest.raises(UserError, match="at least two classes"):
        LinearProbe().fit(x, torch.zeros(6, dtype=torch.int64))
    with pytest.raises(UserError, match="no class has two"):
        LinearProbe().fit(x, torch.arange(6))
    with pytest.raises(UserError, match="penalties must be above 0"):
        LinearProbe([0.0])
    with pytest.raises(UserError, match="fraction must be between 0 and 1"):
        LinearProbe(holdout=1.0).fit(x, torch.arange(6) % 2)


def test_with_one_scale_rows_have_unit_length_and_columns_keep_their_proportions():
    x, y = torch.rand(60, 5, dtype=torch.float64), torch.arange(60) % 3
    x[:, 4] *= 1e-3
    probe = LinearProbe([1e-2], max_iterations=1000, tolerance=1e-14, one_scale=True).fit(x, y)
    unit = torch.nn.functional.normalize(x)
    centered = unit - unit.mean(0)
    z = (centered / centered.square().mean().sqrt()).numpy()
    model = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-10, max_iter=5000).fit(z, y.numpy())
    found = probe.decision(x).softmax(1).numpy()
    np.testing.assert_allclose(found, model.predict_proba(z), atol=1e-4)
    longer = probe.decision(7 * x)
    torch.testing.assert_close(longer, probe.decision(x))
    assert standardization(x)[1][4] < 1e-3 < standardization(x, one_scale=True)[1][4]
