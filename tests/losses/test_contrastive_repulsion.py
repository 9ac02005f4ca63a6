"""The extra gradient of InfoNCE against what autograd finds."""

import pytest
import torch
from torch.nn import functional as F

from similitude.losses import in_batch_info_nce, info_nce, repulsion

N, P, Q, T = 6, 5, 9, 0.3


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=1)


def across(rows, directions):
    """The part of each row that moves a unit vector along the sphere."""
    return rows - (rows * directions).sum(dim=1, keepdim=True) * directions


def assert_parallel(a, b):
    torch.testing.assert_close(F.normalize(a, dim=1), F.normalize(b, dim=1), rtol=1e-9, atol=1e-9)


def test_a_single_negative_is_turned_around():
    negative = unit(1, P)
    found = repulsion(unit(N, P, seed=1), negative, temperature=T)
    torch.testing.assert_close(found, -negative.expand(N, P))


def test_equal_similarities_give_minus_the_mean():
    found = repulsion(
        torch.zeros(1, 3) + torch.tensor([0.0, 0, 1]), torch.eye(3)[:2], temperature=T
    )
    torch.testing.assert_close(found, torch.tensor([[-0.5, -0.5, 0]]))


def test_with_a_queue_the_negative_gradient_goes_along_the_positive_and_it():
    query = unit(N, P).requires_grad_()
    key, negatives = unit(N, P, seed=1), unit(Q, P, seed=2)
    info_nce(query, key, negatives, temperature=T).backward()
    extra = repulsion(query, negatives, temperature=T)
    assert query.grad is not None
    assert_parallel(-query.grad, key + extra)


def test_in_a_batch_the_positive_is_left_out():
    query, key = (3 * unit(N, P)).requires_grad_(), unit(N, P, seed=1)
    in_batch_info_nce(query, key, temperature=T).backward()
    extra = repulsion(query, key, temperature=T, left_out=(0,))
    assert query.grad is not None
    assert_parallel(-query.grad, across(key + extra, unit(N, P)))


def test_of_two_views_the_query_itself_is_left_out_too():
    """The term of one query of NT-Xent: candidates are constants there."""
    z = torch.cat([unit(N, P), unit(N, P, seed=1)])
    query = (2 * z[:1]).requires_grad_()
    logits = F.normalize(query, dim=1) @ z[1:].T / T  # without itself
    F.cross_entropy(logits, torch.tensor([N - 1])).backward()
    extra = repulsion(query, z, temperature=T, left_out=(0, N))
    assert query.grad is not None
    assert_parallel(-query.grad, across(z[N : N + 1] + extra, z[:1]))


@pytest.mark.parametrize("most", [1, 4, 99])
def test_the_first_rows_are_enough(most):
    query, negatives = unit(N, P), unit(Q, P, seed=2)
    found = repulsion(query, negatives, temperature=T, most=most)
    whole = repulsion(query, negatives, temperature=T)
    torch.testing.assert_close(found, whole[:most])
    assert len(found) == min(most, N)
