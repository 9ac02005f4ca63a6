import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from similitude.losses import channel_cross_entropy, negative_cosine, normalized_regression


def draw(n, p, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, p, generator=generator, dtype=torch.float64)


sizes = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**31))


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_negative_cosine_is_equation_1(size):
    p, z = draw(*size)
    rows = [-(a / a.norm()) @ (b / b.norm()) for a, b in zip(p, z, strict=True)]
    torch.testing.assert_close(negative_cosine(p, z), torch.stack(rows).mean())


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_normalized_regression_is_equation_2(size):
    p, z = draw(*size)
    expected = (F.normalize(p, dim=1) - F.normalize(z, dim=1)).pow(2).sum(1).mean()
    torch.testing.assert_close(normalized_regression(p, z), expected)
    torch.testing.assert_close(normalized_regression(p, z), 2 + 2 * negative_cosine(p, z))


@settings(deadline=None, max_examples=30)
@given(sizes)
def test_channel_cross_entropy_is_that_of_two_softmaxes(size):
    p, z = draw(*size)
    log_q, target = p.log_softmax(dim=1), z.softmax(dim=1)
    torch.testing.assert_close(channel_cross_entropy(p, z), -(target * log_q).sum(dim=1).mean())
    entropy = -(target * target.log()).sum(dim=1).mean()
    torch.testing.assert_close(channel_cross_entropy(z, z), entropy)
    alike = channel_cross_entropy(torch.zeros_like(z), z)
    torch.testing.assert_close(alike, torch.tensor(z.shape[1]).double().log())


@pytest.mark.parametrize(("factor", "cosine", "regression"), [(3.0, -1.0, 0.0), (-3.0, 1.0, 4.0)])
def test_range(factor, cosine, regression):
    p = draw(5, 6, 0)[0]
    assert negative_cosine(p, factor * p).item() == pytest.approx(cosine)
    assert normalized_regression(p, factor * p).item() == pytest.approx(regression, abs=1e-12)


@pytest.mark.parametrize("loss", [negative_cosine, normalized_regression])
def test_the_gradient_reaches_both_arguments(loss):
    """The stop-gradient is written in the method; a loss that detaches would hide it."""
    p, z = (x.requires_grad_() for x in draw(5, 6, 0))
    loss(p, z).backward()
    torch.testing.assert_close(p.grad.norm() > 0.01, torch.tensor(True))
    torch.testing.assert_close(z.grad.norm() > 0.01, torch.tensor(True))


def test_short_rows_are_clamped_as_in_byol():
    """x / sqrt(max(|x|^2, 1e-12)): a row of length 1e-8 becomes one of length 1e-2."""
    p = torch.tensor([[1e-8, 0.0]], dtype=torch.float64, requires_grad=True)
    z = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    loss = normalized_regression(p, z)
    loss.backward()
    assert loss.item() == pytest.approx(1 + 1e-4)
    # d/dp of (1e6 p)^2 + 1, and of -2 (1e6 p) . z / |z|
    torch.testing.assert_close(p.grad, torch.tensor([[2e12 * 1e-8, -2e6]], dtype=torch.float64))
