import pytest
import torch
from torch import nn

from similitude.nets import clip_each_, drop_gradients


def parameter(*grad):
    p = nn.Parameter(torch.zeros(len(grad), dtype=torch.float64))
    p.grad = torch.tensor(grad, dtype=torch.float64)
    return p


def test_each_gradient_is_clipped_by_its_own_norm():
    long, short = parameter(3.0, 4.0), parameter(0.3, 0.4)
    clip_each_([long, short], 2.0)
    torch.testing.assert_close(long.grad, torch.tensor([1.2, 1.6]).double(), rtol=1e-6, atol=0)
    assert torch.equal(short.grad, torch.tensor([0.3, 0.4], dtype=torch.float64))


def test_the_direction_stays_and_zero_stays_zero():
    g, zero = parameter(5.0, -12.0), parameter(0.0, 0.0)
    clip_each_([g, zero], 1.0)
    assert g.grad[1] / g.grad[0] == pytest.approx(-12 / 5)
    assert g.grad.norm().item() == pytest.approx(13 / (13 + 1e-6))
    assert not zero.grad.any()


def test_parameters_without_a_gradient_are_passed_over():
    free = nn.Parameter(torch.zeros(2))
    clip_each_([free], 1.0)
    assert free.grad is None


def test_dropped_gradients_leave_weights_and_momentum_alone():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1)
    before = layer.weight.detach().clone()
    layer(torch.ones(1, 2)).sum().backward()
    drop_gradients(layer)
    optimizer.step()
    assert torch.equal(layer.weight, before)
    assert not optimizer.state
