import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from similitude.losses import in_batch_info_nce, info_nce, nt_xent

temperatures = st.floats(0.05, 2.0)
sizes = st.tuples(st.integers(1, 7), st.integers(2, 9), st.integers(0, 2**31))


def draw(n, p, seed, count=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, n, p, generator=generator, dtype=torch.float64)


def nt_xent_by_loops(z1, z2, temperature):
    """SimCLR, eq. 1, one pair at a time."""
    z = [F.normalize(v, dim=0) for v in (*z1, *z2)]
    n, terms = len(z1), []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [torch.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i]
        terms.append(-torch.log(torch.exp(z[i] @ z[j] / temperature) / sum(others)))
    return torch.stack(terms).mean()


def info_nce_by_concatenation(query, key, negatives, temperature):
    """MoCo, Alg. 1: cross-entropy of [positive, negatives] with label 0."""
    positive = torch.einsum("nc,nc->n", query, key)[:, None]
    logits = torch.cat([positive, query @ negatives.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(sizes, temperatures)
def test_nt_xent_is_equation_1(size, temperature):
    z1, z2 = draw(*size)
    expected = nt_xent_by_loops(z1, z2, temperature)
    torch.testing.assert_close(nt_xent(z1, z2, temperature=temperature), expected)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(sizes, temperatures, st.integers(1, 20))
def test_info_nce_is_cross_entropy_with_label_0(size, temperature, num_negatives):
    query, key = F.normalize(draw(*size), dim=2)
    negatives = F.normalize(draw(num_negatives, size[1], size[2] + 1, count=1)[0], dim=1)
    query.requires_grad_()
    loss = info_nce(query, key, negatives, temperature=temperature)
    expected = info_nce_by_concatenation(query, key, negatives, temperature)
    torch.testing.assert_close(loss, expected)
    grads = [torch.autograd.grad(value, query)[0] for value in (loss, expected)]
    torch.testing.assert_close(*grads)


def test_in_batch_info_nce_is_info_nce_with_the_other_keys():
    query, key = F.normalize(draw(5, 7, 0), dim=2)
    per_query = [
        info_nce(query[[i]], key[[i]], key[torch.arange(5) != i], temperature=0.2) for i in range(5)
    ]
    loss = in_batch_info_nce(3 * query, 5 * key, temperature=0.2)  # any norm
    torch.testing.assert_close(loss, torch.stack(per_query).mean())


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_equal_similarities_give_the_log_of_the_number_of_candidates(temperature):
    ones = torch.ones(5, 4, dtype=torch.float64)
    unit = F.normalize(ones, dim=1)
    negatives = F.normalize(torch.ones(10, 4, dtype=torch.float64), dim=1)
    losses = [
        nt_xent(ones, ones, temperature=temperature).item(),
        info_nce(unit, unit, negatives, temperature=temperature).item(),
        in_batch_info_nce(ones, ones, temperature=temperature).item(),
    ]
    assert losses == pytest.approx([math.log(2 * 5 - 1), math.log(1 + 10), math.log(5)])


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(sizes, temperatures)
def test_nt_xent_ignores_sample_order_view_order_and_length_of_rows(size, temperature):
    z1, z2 = draw(*size)
    loss = nt_xent(z1, z2, temperature=temperature)
    order = torch.randperm(len(z1))
    torch.testing.assert_close(nt_xent(z1[order], z2[order], temperature=temperature), loss)
    torch.testing.assert_close(nt_xent(z2, z1, temperature=temperature), loss)
    lengths = torch.rand(len(z1), 1, dtype=torch.float64) + 0.1
    torch.testing.assert_close(nt_xent(lengths * z1, z2, temperature=temperature), loss)


def test_info_nce_ignores_the_order_of_the_queue_and_feels_every_negative():
    query, key = F.normalize(draw(3, 4, 0), dim=2)
    negatives = F.normalize(draw(6, 4, 1, count=1)[0], dim=1)
    loss = info_nce(query, key, negatives, temperature=0.2)
    shuffled = info_nce(query, key, negatives[torch.randperm(6)], temperature=0.2)
    torch.testing.assert_close(shuffled, loss)
    for i in range(6):
        assert info_nce(query, key, negatives[torch.arange(6) != i], temperature=0.2) < loss


def test_pairs_matter_and_not_only_the_sets_of_views():
    z1 = draw(6, 8, 0, count=1)[0]
    z2 = z1 + 0.1 * draw(6, 8, 1, count=1)[0]
    for loss in (nt_xent, in_batch_info_nce):
        assert loss(z1, z2, temperature=0.5) < loss(z1, z2.roll(1, 0), temperature=0.5) - 0.1


@pytest.mark.parametrize("loss", [nt_xent, in_batch_info_nce])
def test_a_small_temperature_overflows_nothing(loss):
    """exp(1 / 0.001) is infinite even in float64."""
    z1, z2 = draw(4, 8, 0).float().requires_grad_()
    z1.retain_grad()
    value = loss(z1, z2, temperature=1e-3)
    value.backward()
    assert value.isfinite()
    assert z1.grad.isfinite().all()
    assert z1.grad.any()


def test_info_nce_of_a_hopeless_and_of_a_solved_query_is_finite():
    query = F.normalize(draw(4, 8, 0, count=1)[0], dim=1).float().requires_grad_()
    hopeless = info_nce(query, -query.detach(), query.detach(), temperature=1e-3)
    # Own row among the negatives at cosine 1, positive at -1: the loss is 2 / temperature.
    torch.testing.assert_close(hopeless, torch.tensor(2e3))
    solved = info_nce(query, query.detach(), -query.detach()[:1], temperature=1e-3)
    assert 0 <= solved < hopeless
    (hopeless + solved).backward()
    assert query.grad.isfinite().all()


def test_a_dead_row_does_not_spoil_the_batch():
    z1, z2 = draw(4, 8, 0).float()
    z1[0] = 0
    z1.requires_grad_()
    nt_xent(z1, z2, temperature=0.1).backward()
    assert z1.grad.isfinite().all()
