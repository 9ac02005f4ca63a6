import math

import pytest
import torch

from similitude.losses import cpc_info_nce, cpc_shared_info_nce


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(predictions, targets, eps=0.0):
    """CPC, eq. 4, one prediction at a time."""
    terms = []
    for p, candidates in zip(predictions, targets, strict=True):
        scores = torch.stack([(p @ z).exp() for z in candidates])
        terms.append(-(scores[0] / scores.sum() + eps).log())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_cpc_info_nce_is_equation_4(eps):
    predictions, targets = draw(5, 4), draw(5, 7, 4, seed=1)
    loss = cpc_info_nce(predictions, targets, log_eps=eps)
    torch.testing.assert_close(loss, by_loops(predictions, targets, eps))


@pytest.mark.parametrize("eps", [0.0, 1e-11])
def test_gradients_are_those_of_the_value(eps):
    inputs = draw(3, 4).requires_grad_(), draw(3, 5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, t: cpc_info_nce(p, t, log_eps=eps), inputs)


def test_shared_candidates_are_the_same_loss_with_each_row_written_out():
    predictions, pool = draw(6, 4), draw(9, 4, seed=1)
    positive_index = torch.tensor([3, 0, 8, 3, 5, 1])
    others = [[j for j in range(9) if j != i] for i in positive_index.tolist()]
    rows = torch.cat([positive_index[:, None], torch.tensor(others)], dim=1)
    torch.testing.assert_close(
        cpc_shared_info_nce(predictions, pool, positive_index),
        cpc_info_nce(predictions, pool[rows]),
    )


def test_equal_scores_give_the_log_of_the_number_of_candidates():
    predictions, pool = draw(4, 3), torch.zeros(6, 3, dtype=torch.float64)
    index = torch.arange(4)
    assert cpc_info_nce(predictions, pool.expand(4, 6, 3)).item() == pytest.approx(math.log(6))
    assert cpc_shared_info_nce(predictions, pool, index).item() == pytest.approx(math.log(6))


def test_the_first_column_is_the_right_one():
    predictions, targets = draw(4, 8), draw(4, 6, 8, seed=1)
    targets[:, 2] = predictions
    swapped = targets[:, [2, 1, 0, 3, 4, 5]]
    assert cpc_info_nce(predictions, swapped) < cpc_info_nce(predictions, targets) - 1


def test_nothing_is_normalized():
    predictions, targets = draw(4, 8), draw(4, 6, 8, seed=1)
    loss = cpc_info_nce(predictions, targets)
    assert abs(loss - cpc_info_nce(2 * predictions, targets)) > 0.1
    torch.testing.assert_close(cpc_info_nce(2 * predictions, targets / 2), loss)


def test_large_scores_overflow_nothing_and_eps_bounds_the_loss():
    """exp(1000) is infinite even in float64."""
    p = torch.tensor([[100.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[[-10.0, 0.0], [10.0, 0.0]]])
    torch.testing.assert_close(cpc_info_nce(p, targets), torch.tensor(2000.0))
    bounded = cpc_info_nce(p, targets, log_eps=1e-11)
    assert bounded.item() == pytest.approx(-math.log(1e-11))
    bounded.backward()
    assert p.grad.isfinite().all()
