import math

import pytest
import torch

from similitude.errors import UserError
from similitude.losses import self_distillation, self_distillation_before_logits, tiles

TEMPERATURES = {"online_temperature": 0.1, "target_temperature": 0.04}


def draw(count, n=5, k=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, n, k, generator=generator, dtype=torch.float64))


def test_self_distillation_is_equation_3():
    """All pairs of a target view and another view of the online network."""
    online, target, center = draw(4), draw(2, seed=1), draw(1, n=1, seed=2)[0][0]
    pairs = [
        -(((t - center) / 0.04).softmax(dim=1) * (s / 0.1).log_softmax(dim=1)).sum(dim=1).mean()
        for i, t in enumerate(target)
        for v, s in enumerate(online)
        if v != i
    ]
    assert len(pairs) == 2 * 3
    loss = self_distillation(online, target, center, **TEMPERATURES)
    torch.testing.assert_close(loss, torch.stack(pairs).mean())


def test_the_center_is_taken_off_before_the_temperature():
    """A shift of all logits that the center follows changes nothing; after it, it would."""
    online, target, center = draw(3), draw(2, seed=1), draw(1, n=1, seed=2)[0][0]
    loss = self_distillation(online, target, center, **TEMPERATURES)
    shift = torch.arange(6.0, dtype=torch.float64)
    shifted = self_distillation(online, [t + shift for t in target], center + shift, **TEMPERATURES)
    torch.testing.assert_close(shifted, loss)


def test_logits_that_tell_nothing_give_log_k():
    nothing = [torch.ones(5, 6, dtype=torch.float64)] * 3
    zero = torch.zeros(6, dtype=torch.float64)
    loss = self_distillation(nothing, nothing[:2], zero, **TEMPERATURES)
    assert loss.item() == pytest.approx(math.log(6))


def test_the_loss_is_entropy_of_the_target_plus_divergence():
    """What the method's metrics rest on."""
    online, target, center = draw(3), draw(2, seed=1), torch.zeros(6, dtype=torch.float64)
    q = [(t / 0.04).softmax(dim=1) for t in target]
    p = [(s / 0.1).softmax(dim=1) for s in online]
    entropy = torch.stack([-(a * a.log()).sum(dim=1).mean() for a in q]).mean()
    divergence = torch.stack(
        [
            (a * (a / b).log()).sum(dim=1).mean()
            for i, a in enumerate(q)
            for v, b in enumerate(p)
            if v != i
        ]
    ).mean()
    loss = self_distillation(online, target, center, **TEMPERATURES)
    torch.testing.assert_close(loss, entropy + divergence)


@pytest.mark.slow
def test_gradients():
    online = [x.requires_grad_() for x in draw(3, 3, 4)]
    target = [x.requires_grad_() for x in draw(2, 3, 4, seed=1)]
    center = draw(1, 1, 4, seed=2)[0][0].requires_grad_()

    def loss(*parts):
        return self_distillation(
            list(parts[:3]),
            list(parts[3:5]),
            parts[5],
            online_temperature=0.5,
            target_temperature=0.7,
        )

    torch.autograd.gradcheck(loss, (*online, *target, center))


def test_65536_classes_in_half_precision():
    """The softmax of as many classes in float16 is what the reference warns of."""
    online = [torch.randn(2, 65_536).half() for _ in range(2)]
    center = torch.zeros(65_536)
    loss = self_distillation(online, online, center, **TEMPERATURES)
    assert loss.dtype == torch.float32
    upcast = [x.float() for x in online]
    full = self_distillation(upcast, upcast, center, **TEMPERATURES)
    assert torch.equal(loss, full)


def test_a_single_view_is_refused():
    with pytest.raises(UserError, match="1 views and 1 targets"):
        self_distillation(draw(1), draw(1), torch.zeros(6, dtype=torch.float64), **TEMPERATURES)


@pytest.mark.parametrize("numbers", [1, 80, 10**6])
def test_before_the_last_layer_it_is_the_same(numbers, monkeypatch):
    """Loss, gradients of inputs and weights, and the targets' entropy."""
    monkeypatch.setattr(tiles, "NUMBERS", numbers)
    online, target = draw(4, k=3), draw(2, k=3, seed=1)
    weight, target_weight = draw(2, n=6, k=3, seed=2)
    center = draw(1, n=1, seed=3)[0][0]
    leaves = [t.requires_grad_() for t in [*online, weight]]

    logits = [t @ target_weight.T for t in target]
    expected = self_distillation([x @ weight.T for x in online], logits, center, **TEMPERATURES)
    found, entropy = self_distillation_before_logits(
        online, target, weight, target_weight, center, **TEMPERATURES
    )
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        torch.testing.assert_close(a, b)
    q = torch.cat([((t - center) / 0.04).softmax(dim=1) for t in logits])
    torch.testing.assert_close(entropy, -(q * q.log()).sum(dim=1).mean())
    assert not entropy.requires_grad
