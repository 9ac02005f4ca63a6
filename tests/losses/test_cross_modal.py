"""CLIP's and SigLIP's losses against their definitions, with and without missing entries."""

import math

import pytest
import torch
from torch.nn import functional as F

from similitude.losses import matched_sigmoid, matched_softmax, tiles


def projections(n=7, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        F.normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64), dim=1)
        for _ in range(2)
    ]


SCALE = torch.tensor(3.0, dtype=torch.float64)


def test_softmax_is_the_mean_of_both_directions():
    a, b = projections()
    logits, index = SCALE * a @ b.T, torch.arange(7)
    expected = (F.cross_entropy(logits, index) + F.cross_entropy(logits.T, index)) / 2
    torch.testing.assert_close(matched_softmax(a, b, scale=SCALE), expected)
    same = torch.ones(7, 5, dtype=torch.float64) / 5**0.5
    assert matched_softmax(same, same, scale=SCALE).item() == pytest.approx(math.log(7))


def test_sigmoid_is_a_sum_over_all_pairs():
    a, b = projections()
    bias = torch.tensor(-2.0, dtype=torch.float64)
    logits = SCALE * a @ b.T + bias
    y = 2 * torch.eye(7, dtype=torch.float64) - 1
    expected = -F.logsigmoid(y * logits).sum() / 7
    torch.testing.assert_close(matched_sigmoid(a, b, scale=SCALE, bias=bias), expected)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_missing_entries_are_as_if_they_were_not_there(kind):
    a, b = projections()
    valid = torch.tensor([True, False, True, True, False, True, True])
    options = {"scale": SCALE}
    if kind == "sigmoid":
        options["bias"] = torch.tensor(-2.0, dtype=torch.float64)
    loss = matched_softmax if kind == "softmax" else matched_sigmoid
    torch.testing.assert_close(
        loss(a, b, valid=valid, **options), loss(a[valid], b[valid], **options)
    )
    assert loss(a, b, valid=torch.zeros(7, dtype=torch.bool), **options).item() == 0


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_tiles_and_shares_are_the_whole_with_all_gradients(kind, monkeypatch):
    def graded(share=(0, 1)):
        a, b = (x.requires_grad_() for x in projections())
        scale = SCALE.clone().requires_grad_()
        options = {"scale": scale, "share": share, "valid": torch.arange(7) != 2}
        if kind == "sigmoid":
            options["bias"] = torch.tensor(-2.0, dtype=torch.float64).requires_grad_()
        loss = (matched_softmax if kind == "softmax" else matched_sigmoid)(a, b, **options)
        leaves = [a, b, scale, *([options["bias"]] if kind == "sigmoid" else [])]
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    whole = graded()
    monkeypatch.setattr(tiles, "NUMBERS", 1)
    torch.testing.assert_close(graded(), whole)
    halves = zip(graded((0, 2)), graded((1, 2)), strict=True)
    torch.testing.assert_close([(x + y) / 2 for x, y in halves], whole)
