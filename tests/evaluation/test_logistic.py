import math

import pytest
import torch

from similitude.errors import UserError
from similitude.evaluation.logistic import Rows, fit_logistic, logits


def objective(rows: Rows, coefficients: torch.Tensor, penalty: float) -> torch.Tensor:
    """The objective of the module's docstring, written plainly; [B, F]."""
    log_p = logits(rows.x, coefficients).log_softmax(-1)
    y = rows.y[:, None, :, None].expand(*log_p.shape[:3], 1)
    loss = -(rows.weight * log_p.gather(3, y).squeeze(3)).sum(2)
    return loss + penalty / 2 * coefficients[:, :, :-1].square().sum((2, 3))


def problems() -> Rows:
    x = torch.randn(3, 40, 6).double() * torch.tensor([1.0, 0.1, 5.0])[:, None, None]
    y = torch.randint(0, 4, (3, 40))
    weight = torch.rand(3, 2, 40).double()
    weight[:, 0, :10] = 0
    return Rows(x, y, weight / weight.sum(2, keepdim=True))


@pytest.mark.slow
def test_the_gradient_of_every_problem_is_zero_at_the_solution() -> None:
    rows = problems()
    found = fit_logistic(rows, 4, 0.01, max_iterations=500, tolerance=1e-20)
    found.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(rows, found, 0.01).sum(), found)
    assert gradient.abs().max() < 1e-8


@pytest.mark.slow
def test_problems_solved_together_are_the_problems_solved_alone() -> None:
    rows = problems()
    together = fit_logistic(rows, 4, 0.1, max_iterations=500, tolerance=1e-20)
    for b in range(3):
        for f in range(2):
            one = Rows(rows.x[b : b + 1], rows.y[b : b + 1], rows.weight[b : b + 1, f : f + 1])
            alone = fit_logistic(one, 4, 0.1, max_iterations=500, tolerance=1e-20)
            torch.testing.assert_close(together[b, f], alone[0, 0], rtol=0, atol=1e-7)


@pytest.mark.slow
def test_rows_of_weight_zero_do_not_matter() -> None:
    rows = problems()
    changed = Rows(rows.x.clone(), rows.y, rows.weight[:, :1])
    changed.x[:, :10] += 1.0
    a = fit_logistic(
        Rows(rows.x, rows.y, rows.weight[:, :1]), 4, 0.1, max_iterations=500, tolerance=1e-20
    )
    b = fit_logistic(changed, 4, 0.1, max_iterations=500, tolerance=1e-20)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_rows_in_chunks_give_the_same_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    import similitude.evaluation.logistic as logistic

    rows = problems()
    whole = fit_logistic(rows, 4, 0.1, max_iterations=500, tolerance=1e-20)
    monkeypatch.setattr(logistic, "MAX_LOGITS", 7 * 3 * 2 * 4)
    chunks = fit_logistic(rows, 4, 0.1, max_iterations=500, tolerance=1e-20)
    torch.testing.assert_close(whole, chunks, rtol=0, atol=1e-7)


def test_separable_classes_with_a_tiny_penalty_stay_finite_and_are_solved() -> None:
    x = torch.tensor([[[1.0, 0.0], [2.0, 0.1], [-1.0, 0.0], [-2.0, 0.2]]])
    rows = Rows(x, torch.tensor([[0, 0, 1, 1]]), torch.full((1, 1, 4), 0.25))
    found = fit_logistic(rows, 2, 1e-6, max_iterations=200, tolerance=1e-9)
    assert torch.isfinite(found).all()
    assert logits(x, found)[0, 0].argmax(1).tolist() == [0, 0, 1, 1]
    assert objective(rows, found, 1e-6).item() < 1e-3


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_features_of_a_collapsed_backbone_are_fitted_too(noise: float) -> None:
    """One direction in float32: rounding gives the metric eigenvalues below zero."""
    y = torch.randint(2, (600,))
    x = torch.randn(600, 1).exp() @ torch.ones(1, 128) + noise * torch.randn(600, 128)
    x = (x - x.mean(0)) / x.std(0)
    rows = Rows(x[None], y[None], torch.full((1, 1, 600), 1 / 600))
    found = fit_logistic(rows, 2, 1e-9, max_iterations=20, tolerance=1e-4)
    assert found.isfinite().all()
    assert objective(rows, found, 1e-9) <= math.log(2) + 1e-6  # no worse than all zeros


def test_features_whose_squares_overflow_are_told() -> None:
    y = torch.randint(2, (10,))
    rows = Rows(torch.full((1, 10, 3), 1e30), y[None], torch.full((1, 1, 10), 0.1))
    with pytest.raises(UserError, match="too large"):
        fit_logistic(rows, 2, 1e-3, max_iterations=2, tolerance=1e-4)
