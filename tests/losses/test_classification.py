"""Classification of indices, from its equation, in numbers of NumPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from similitude.losses import index_cross_entropy, instance_softmax, tiles

sizes = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**31))


def draw(n, d, m, seed=0):
    """Features [n, d], weights [m, d] and indices [n]."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, d, generator=generator, dtype=torch.float64)
    weights = torch.randn(m, d, generator=generator, dtype=torch.float64)
    return features, weights, torch.randint(m, (n,), generator=generator)


def by_targets(features, weights, index, label_smoothing, temperature):
    """Cross-entropy against the smoothed one-hot target, every one written out."""
    logits = features @ weights.T / temperature
    target = np.full(logits.shape, label_smoothing / len(weights))
    target[np.arange(len(index)), index] += 1 - label_smoothing
    highest = logits.max(axis=1, keepdims=True)
    log_sum = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    return -(target * (logits - log_sum)).sum(axis=1).mean()


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(sizes, st.floats(0, 1), st.floats(0.05, 3.0))
def test_it_is_cross_entropy_with_smoothed_targets(size, label_smoothing, temperature):
    features, weights, index = draw(*size)
    options = {"label_smoothing": label_smoothing, "temperature": temperature}
    loss = index_cross_entropy(features, weights, index, **options)
    expected = by_targets(features.numpy(), weights.numpy(), index.numpy(), **options)
    assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_a_smoothed_loss_by_hand():
    """Two classes with logits ln 3 and 0, so P = 3/4 and 1/4; of 0.8, each class has 0.4."""
    features = torch.tensor([[math.log(3)]], dtype=torch.float64)
    weights = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    right, wrong = (
        index_cross_entropy(features, weights, torch.tensor([i]), label_smoothing=0.8).item()
        for i in (0, 1)
    )
    assert right == pytest.approx(-0.6 * math.log(3 / 4) - 0.4 * math.log(1 / 4), rel=1e-12)
    assert wrong == pytest.approx(-0.4 * math.log(3 / 4) - 0.6 * math.log(1 / 4), rel=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3, 0.8, 1.0])
def test_equal_logits_give_the_log_of_the_number_of_samples(label_smoothing):
    features, weights, index = draw(5, 4, 9)
    same = weights[:1].expand(9, -1)
    loss = index_cross_entropy(features, same, index, label_smoothing=label_smoothing)
    assert loss.item() == pytest.approx(math.log(9), rel=1e-12)


def test_the_loss_cannot_go_below_the_entropy_of_the_target():
    """It reaches it where P is the target, and is higher where the own logit is any other."""
    m, smoothing = 7, 0.8
    own, other = 1 - smoothing + smoothing / m, smoothing / m
    entropy = -own * math.log(own) - (m - 1) * other * math.log(other)
    one_hot = torch.eye(m, dtype=torch.float64)
    at_best, *others = (
        index_cross_entropy(
            factor * math.log(own / other) * one_hot,
            one_hot,
            torch.arange(m),
            label_smoothing=smoothing,
        ).item()
        for factor in (1.0, 0.5, 0.9, 1.1, 2.0)
    )
    assert at_best == pytest.approx(entropy, rel=1e-12)
    assert all(loss > at_best for loss in others)


@pytest.mark.slow
@pytest.mark.parametrize("label_smoothing", [0.0, 0.8])
def test_gradients_are_those_of_finite_differences(label_smoothing):
    features, weights, index = draw(4, 3, 6)

    def loss(features, weights):
        return index_cross_entropy(
            features, weights, index, label_smoothing=label_smoothing, temperature=0.7
        )

    assert torch.autograd.gradcheck(
        loss, (features.requires_grad_(), weights.requires_grad_()), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("numbers", [1, 12, 2**22])
def test_values_and_gradients_do_not_depend_on_the_tiles(numbers, monkeypatch):
    monkeypatch.setattr(tiles, "NUMBERS", numbers)
    features, weights, index = draw(5, 3, 6)
    inputs = features.requires_grad_(), weights.requires_grad_()
    loss = index_cross_entropy(*inputs, index, label_smoothing=0.8)
    expected = F.cross_entropy(features @ weights.T, index, label_smoothing=0.8)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(value, inputs) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_without_smoothing_it_is_the_parametric_softmax_of_inst_disc():
    features, weights, index = draw(5, 3, 6)
    torch.testing.assert_close(
        index_cross_entropy(features, weights, index, label_smoothing=0.0, temperature=0.2),
        instance_softmax(features, weights, index, temperature=0.2),
        rtol=1e-12,
        atol=0,
    )


def test_large_logits_overflow_nothing():
    features, weights, index = (x.float() if x.is_floating_point() else x for x in draw(4, 3, 6))
    features = (1e4 * features).requires_grad_()
    loss = index_cross_entropy(features, weights, index, label_smoothing=0.8)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()
