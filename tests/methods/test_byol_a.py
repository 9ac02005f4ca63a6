"""BYOL-A's loss and target are its paper's equations, written again with NumPy."""

import numpy as np
import torch

from builders import START, TinyBackbone
from similitude.method import Batch
from similitude.methods import build_method, make_config

SETTINGS = {"hidden_dim": 16, "projection_dim": 5}


def made():
    method = build_method(make_config("byol_a", SETTINGS), TinyBackbone()).double()
    for parameter in method.parameters():  # online and target network are not equal
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return method, [torch.randn(6, 3, 8, 8, dtype=torch.float64) for _ in range(2)]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@torch.no_grad()
def test_the_loss_is_the_squared_distance_of_unit_vectors_in_both_orders():
    method, views = made()
    found = method.training_loss(Batch(views, torch.arange(6)), START)
    p = [method.predictor(method.projector(method.backbone(v))).numpy() for v in views]
    z = [method.target_projector(method.target_backbone(v)).numpy() for v in views]
    expected = [((unit(p[i]) - unit(z[1 - i])) ** 2).sum(axis=1).mean() for i in (0, 1)]
    np.testing.assert_allclose(found.loss.item(), sum(expected), rtol=1e-12)
    assert found.loss.item() > 0.1


def test_the_target_gets_no_gradient_and_follows_slowly():
    method, views = made()
    method.training_loss(Batch(views, torch.arange(6)), START).loss.backward()
    for name, online in (("backbone", method.backbone), ("projector", method.projector)):
        target = getattr(method, f"target_{name}")
        assert all(p.grad is None for p in target.parameters())
        assert all(p.grad is not None for p in online.parameters())
    before = [p.clone() for p in method.target_projector.parameters()]
    method.after_step(START)
    pairs = zip(method.target_projector.parameters(), method.projector.parameters(), strict=True)
    for old, (target, online) in zip(before, pairs, strict=True):
        torch.testing.assert_close(target, 0.99 * old + 0.01 * online)
