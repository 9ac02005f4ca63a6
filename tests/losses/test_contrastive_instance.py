"""Losses over the images of a data set (InstDisc, memory bank) and of a batch (InvaSpread)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from similitude.errors import UserError
from similitude.losses import (
    bank_softmax,
    info_nce,
    instance_nce,
    instance_softmax,
    invariant_spread,
)

temperatures = st.floats(0.05, 2.0)
sizes = st.tuples(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**31))


def units(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def invariant_spread_by_loops(z1, z2, temperature, weight):
    """One pair at a time; the key of every product without gradient."""
    z, n = torch.cat([z1, z2]), len(z1)
    total = torch.zeros((), dtype=z.dtype)
    for i in range(2 * n):
        other = (i + n) % (2 * n)
        e = [torch.exp(z[i] @ z[j].detach() / temperature) for j in range(2 * n)]
        denominator = e[other] + weight * sum(e[j] for j in range(2 * n) if j not in (i, other))
        total = total - torch.log(e[other] / denominator)
        for j in range(2 * n):
            if j not in (i, other):
                total = total - weight * torch.log(1 - e[j] / denominator)
    return total / (2 * n)


def instance_nce_by_equations(features, rows, temperature, normalizer, num_samples):
    """InstDisc, eq. 4, 6 and 7, with the 1e-7 of the authors' code."""
    p = torch.exp(torch.stack([r @ f for f, r in zip(features, rows, strict=True)]) / temperature)
    p = p / normalizer
    noise = (rows.shape[1] - 1) / num_samples
    data = torch.log(p[:, 0] / (p[:, 0] + noise + 1e-7))
    others = torch.log(noise / (p[:, 1:] + noise + 1e-7)).sum(dim=1)
    return -(data + others).mean()


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(sizes, temperatures, st.sampled_from([1.0, 1.5, 4.0]))
def test_invariant_spread_is_its_equation(size, temperature, weight):
    n, p, seed = size
    z = units(2 * n, p, seed=seed).requires_grad_()
    loss = invariant_spread(*z.chunk(2), temperature=temperature, negative_weight=weight)
    expected = invariant_spread_by_loops(*z.chunk(2), temperature, weight)
    torch.testing.assert_close(loss, expected)
    if n > 1:  # one image alone has nothing to tell itself from
        grads = [torch.autograd.grad(value, z)[0] for value in (loss, expected)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_invariant_spread_of_equal_similarities(weight):
    same = units(1, 4).expand(5, -1)
    loss = invariant_spread(same, same, temperature=0.1, negative_weight=weight)
    p = 1 / (1 + weight * 8)
    assert loss.item() == pytest.approx(-math.log(p) - weight * 8 * math.log(1 - p))


@pytest.mark.parametrize("temperature", [1e-3, 0.07])
def test_a_negative_that_wins_costs_a_finite_amount(temperature):
    """Two images with one feature, their other views opposite: P of the negative rounds to 1."""
    z = units(1, 8).float().expand(2, -1).clone().requires_grad_()
    other = -z.detach()
    loss = invariant_spread(z, other, temperature=temperature)
    # of view 1: -log P = 2 / t; -log(1 - P) = 2 / t - log 2. Of view 2 the same.
    assert loss.item() == pytest.approx(4 / temperature - math.log(2), rel=1e-4)
    loss.backward()
    assert z.grad.isfinite().all()


def test_the_spread_keeps_its_digits_in_float32():
    """1 - P of a confused pair is 1e-6 or so, where float32 holds 1 - P to 6e-8."""
    z = units(12, 16)
    z[1] = F.normalize(z[0] + 0.02 * z[1], dim=0)  # two images alike, their other views not
    exact = invariant_spread(*z.chunk(2), temperature=0.05)
    ours = invariant_spread(*z.float().chunk(2), temperature=0.05)
    assert ours.item() == pytest.approx(exact.item(), rel=1e-6)


def test_views_of_an_image_attract_and_other_images_repel():
    z1, z2 = units(2, 6, 8)
    close = F.normalize(z1 + 0.2 * z2, dim=1)
    good = invariant_spread(z1, close, temperature=0.1)
    assert good < invariant_spread(z1, close.roll(1, 0), temperature=0.1) - 1
    assert good < invariant_spread(z1, close[:1].expand(6, -1), temperature=0.1) - 1
    swapped = invariant_spread(close, z1, temperature=0.1)
    torch.testing.assert_close(swapped, good)


def test_a_weight_below_one_is_refused():
    with pytest.raises(UserError, match=r"negative_weight is 0\.5; give 1 or more"):
        invariant_spread(*units(2, 3, 4), temperature=0.1, negative_weight=0.5)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(sizes, temperatures, st.integers(1, 9), st.integers(1, 1000), st.floats(0.1, 1e5))
def test_instance_nce_is_its_equations(size, temperature, negatives, num_samples, normalizer):
    n, p, seed = size
    features = units(n, p, seed=seed).requires_grad_()
    rows = units(n, 1 + negatives, p, seed=seed + 1)
    arguments = {"temperature": temperature, "normalizer": normalizer, "num_samples": num_samples}
    loss = instance_nce(features, rows, **arguments)
    expected = instance_nce_by_equations(features, rows, **arguments)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    grads = [torch.autograd.grad(value, features)[0] for value in (loss, expected)]
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-10)
    as_tensor = arguments | {"normalizer": torch.tensor(normalizer, dtype=torch.float64)}
    torch.testing.assert_close(instance_nce(features, rows, **as_tensor), loss, rtol=1e-12, atol=0)


def test_instance_nce_of_rows_that_all_have_probability_one_nth():
    k, n = 7, 20
    rows = units(1, 5).expand(3, 1 + k, -1)
    loss = instance_nce(
        rows[:, 0], rows, temperature=0.5, normalizer=n * math.exp(2), num_samples=n
    )
    assert loss.item() == pytest.approx((1 + k) * math.log(1 + k) - k * math.log(k), rel=1e-6)


def test_instance_nce_sums_over_negatives_and_averages_over_samples():
    features, rows = units(4, 6), units(4, 4, 6, seed=1)
    arguments = {"temperature": 0.2, "normalizer": 50.0, "num_samples": 10}
    whole = instance_nce(features, rows, **arguments)
    each = [instance_nce(features[[i]], rows[[i]], **arguments) for i in range(4)]
    torch.testing.assert_close(whole, torch.stack(each).mean())
    # Twice the negatives in twice the data: the same density of noise, and twice the sum.
    doubled = torch.cat([rows, rows[:, 1:]], dim=1)
    twice = instance_nce(features, doubled, **arguments | {"num_samples": 20})
    p = torch.exp((features * rows[:, 0]).sum(dim=1) / 0.2) / 50
    data = -torch.log(p / (p + 3 / 10 + 1e-7)).mean()
    torch.testing.assert_close(twice - whole, whole - data)


@pytest.mark.parametrize(("loss", "extra"), [(instance_nce, True), (bank_softmax, False)])
def test_a_small_temperature_overflows_nothing(loss, extra):
    """exp(1 / 0.001) is infinite even in float64."""
    features = units(3, 8).float().requires_grad_()
    rows = torch.stack([features.detach(), -features.detach(), features.detach()], dim=1)
    arguments = {"normalizer": 1e30, "num_samples": 9} if extra else {}
    value = loss(features, rows, temperature=1e-3, **arguments)
    value.backward()
    assert value.isfinite()
    assert features.grad.isfinite().all()


@settings(deadline=None, max_examples=20)
@given(sizes, temperatures, st.integers(1, 9))
def test_bank_softmax_is_cross_entropy_with_label_0(size, temperature, negatives):
    n, p, seed = size
    features, rows = units(n, p, seed=seed), units(n, 1 + negatives, p, seed=seed + 1)
    logits = torch.einsum("np,ncp->nc", features, rows) / temperature
    expected = F.cross_entropy(logits, torch.zeros(n, dtype=torch.long))
    torch.testing.assert_close(bank_softmax(features, rows, temperature=temperature), expected)


def test_bank_softmax_with_rows_in_common_is_info_nce():
    features, keys, negatives = units(4, 6), units(4, 6, seed=1), units(9, 6, seed=2)
    rows = torch.cat([keys[:, None], negatives.expand(4, -1, -1)], dim=1)
    torch.testing.assert_close(
        bank_softmax(features, rows, temperature=0.2),
        info_nce(features, keys, negatives, temperature=0.2),
    )


def test_instance_softmax_is_bank_softmax_over_all_rows():
    features, bank, index = units(3, 6), units(8, 6, seed=1), torch.tensor([5, 0, 2])
    others = [[i, *(j for j in range(8) if j != i)] for i in index.tolist()]
    torch.testing.assert_close(
        instance_softmax(features, bank, index, temperature=0.2),
        bank_softmax(features, bank[torch.tensor(others)], temperature=0.2),
    )


def test_equal_similarities_give_the_log_of_the_number_of_candidates():
    one = units(1, 4)
    features = one.expand(3, -1)
    in_bank = instance_softmax(features, one.expand(7, -1), torch.arange(3), temperature=0.1)
    in_rows = bank_softmax(features, one.expand(3, 7, -1), temperature=0.1)
    assert (in_bank.item(), in_rows.item()) == pytest.approx((math.log(7), math.log(7)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_raised(dtype):
    z = units(2, 4, 8).to(dtype)
    rows = units(4, 3, 8).to(dtype)
    losses = [
        invariant_spread(*z, temperature=0.1),
        instance_nce(z[0], rows, temperature=0.1, normalizer=10.0, num_samples=9),
        bank_softmax(z[0], rows, temperature=0.1),
        instance_softmax(z[0], rows[:, 0], torch.arange(4), temperature=0.1),
    ]
    assert all(loss.dtype == torch.float32 for loss in losses)
