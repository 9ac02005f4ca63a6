"""CMC: which view asks which bank, the constants Z, the rows, and what the paper compares."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch
from similitude.errors import UserError
from similitude.losses import bank_softmax, instance_nce
from similitude.method import Batch, Progress
from similitude.methods.cmc import CMC, CMCConfig
from similitude.recipes import find_recipe, override

NEXT = Progress(step=1, total_steps=10, steps_per_epoch=5)


def method(**changes) -> CMC:
    torch.manual_seed(0)
    values = {"num_samples": 40, "num_negatives": 6, "projection_dim": 12}
    return CMC(TinyBackbone(), CMCConfig(**{**values, **changes})).double()


def batch(seed=0):
    views = random_batch(method(), seed=seed, dtype=torch.float64).views
    return Batch(views, torch.arange(8) * 5)


def features_of(cmc, data):
    parts = cmc.backbone(data.views[0]).chunk(len(cmc.projectors), dim=1)
    return [F.normalize(p(h), dim=1) for p, h in zip(cmc.projectors, parts, strict=True)]


def rows_of(cmc, data, step):
    drawn = cmc.banks[0].draw(data.index, 6, step=step)
    rows = torch.cat([data.index[:, None], drawn], dim=1)
    return [bank.features[rows] for bank in cmc.banks]


def test_each_view_asks_the_other_views_bank():
    cmc = method(loss="softmax")
    light, color = features_of(cmc, batch())
    light_rows, color_rows = rows_of(cmc, batch(), 0)
    expected = bank_softmax(light, color_rows, temperature=0.07)
    expected = expected + bank_softmax(color, light_rows, temperature=0.07)
    torch.testing.assert_close(cmc.training_loss(batch(), START).loss, expected)


def test_every_direction_has_its_own_constant_from_the_first_batch():
    cmc = method()
    light, color = features_of(cmc, batch())
    light_rows, color_rows = rows_of(cmc, batch(), 0)
    expected = [
        40 * (torch.einsum("np,ncp->nc", v, rows) / 0.07).exp().mean()
        for v, rows in ((light, color_rows), (color, light_rows))
    ]
    assert not cmc.normalizers.any()
    loss = cmc.training_loss(batch(), START).loss
    torch.testing.assert_close(cmc.normalizers, torch.stack(expected).detach())
    assert abs(expected[0] - expected[1]) > 0.1
    terms = [
        instance_nce(v, rows, temperature=0.07, normalizer=z.detach(), num_samples=40)
        for v, rows, z in ((light, color_rows, expected[0]), (color, light_rows, expected[1]))
    ]
    torch.testing.assert_close(loss, sum(terms))
    cmc.training_loss(batch(1), NEXT)
    torch.testing.assert_close(cmc.normalizers, torch.stack(expected).detach())


def test_every_view_moves_its_own_bank_after_the_loss():
    cmc = method(ema_decay=0.25)
    before = copy.deepcopy(cmc)
    cmc.training_loss(batch(), START)
    index = batch().index
    for bank, old, v in zip(cmc.banks, before.banks, features_of(before, batch()), strict=True):
        moved = F.normalize(0.25 * old.features[index] + 0.75 * v, dim=1)
        torch.testing.assert_close(bank.features[index], moved.detach())
        others = torch.ones(40, dtype=torch.bool)
        others[index] = False
        assert torch.equal(bank.features[others], old.features[others])


@pytest.mark.parametrize(
    ("graph", "pairs"),
    [
        ("core", [(0, 1), (0, 2), (1, 0), (2, 0)]),
        ("full", [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]),
    ],
)
def test_three_views_as_a_core_or_a_full_graph(graph, pairs):
    cmc = method(split=(1, 1, 1), graph=graph, loss="softmax")
    assert cmc.pairs == pairs
    v, rows = features_of(cmc, batch()), rows_of(cmc, batch(), 0)
    expected = sum(bank_softmax(v[a], rows[b], temperature=0.07) for a, b in pairs)
    output = cmc.training_loss(batch(), START)
    torch.testing.assert_close(output.loss, expected)
    assert output.features.shape == (8, 24)
    assert cmc.backbone.num_features == 24
    assert cmc.chance_loss(8) == pytest.approx(len(pairs) * math.log(7))


def test_a_view_sees_its_own_channels_alone():
    """Color shifts that keep L leave the features of the first view as they are."""
    cmc = method()
    light, color = cmc.backbone.networks
    seen = []
    for network in (light, color):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    cmc.backbone(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    assert not seen[0][:, 1:].any()
    assert not seen[1][:, :1].any()


def test_the_networks_differ_from_the_start():
    cmc = method()
    first, second = cmc.backbone.networks
    assert not torch.equal(first.layers[2].weight, second.layers[2].weight)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("method.view.normalize=true", "normalize=false"),
        ("method.split=[3]", "sum to 3"),
        ("method.split=[2, 2]", "sum to 3"),
    ],
)
def test_what_cannot_be_split_is_told(setting, words):
    with pytest.raises(UserError, match=words):
        override(find_recipe("cifar10.cmc"), [setting])
