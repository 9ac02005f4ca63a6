from functools import partial

import pytest
import torch
from torch.nn import functional as F

from similitude.losses import (
    barlow_twins,
    barlow_twins_hsic,
    in_batch_info_nce,
    info_nce,
    instance_nce,
    instance_softmax,
    invariant_spread,
    mean_over_bank_rows,
    nt_xent,
    nt_xent_with_queue,
    tiles,
)
from similitude.losses.tiles import mean_in_tiles

N, P, Q = 7, 5, 11
CANDIDATES = torch.arange(N * 4).view(N, 4) * 3 % Q


def unit(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, P, generator=generator, dtype=torch.float64), dim=1)


LOSSES = {
    "nt_xent": lambda a, b, more: nt_xent(a, b, temperature=0.2),
    "nt_xent_with_queue": lambda a, b, more: nt_xent_with_queue(a, b, more, temperature=0.2),
    "info_nce": lambda a, b, more: info_nce(a, b, more, temperature=0.2),
    "in_batch_info_nce": lambda a, b, more: in_batch_info_nce(a, b, temperature=0.2),
    "instance_softmax": lambda a, b, more: instance_softmax(
        a, torch.cat([b, more]), torch.arange(N), temperature=0.2
    ),
    "invariant_spread": lambda a, b, more: invariant_spread(a, b, temperature=0.2),
    "barlow_twins": lambda a, b, more: barlow_twins(a, b, off_diagonal_weight=0.3),
    "barlow_twins_hsic": lambda a, b, more: barlow_twins_hsic(a, b, off_diagonal_weight=0.3),
    "instance_nce": lambda a, b, more: mean_over_bank_rows(
        partial(instance_nce, temperature=0.2, normalizer=9.0, num_samples=Q), a, more, CANDIDATES
    ),
}
PARTS = {
    "nt_xent": nt_xent,
    "invariant_spread": invariant_spread,
    "in_batch_info_nce": in_batch_info_nce,
    "barlow_twins": barlow_twins,
    "barlow_twins_hsic": barlow_twins_hsic,
}


def value_and_gradients(loss, tensors):
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = loss(*leaves)
    grads = torch.autograd.grad(3 * value, leaves, allow_unused=True)
    return [value, *(g for g in grads if g is not None)]


@pytest.mark.parametrize("numbers", [1, 2 * N * 3, 40])
@pytest.mark.parametrize("name", LOSSES)
def test_tiles_give_the_value_and_the_gradients_of_the_whole_matrix(name, numbers, monkeypatch):
    tensors = [unit(N, 0), unit(N, 1), unit(Q, 2)]
    whole = value_and_gradients(LOSSES[name], tensors)
    monkeypatch.setattr(tiles, "NUMBERS", numbers)
    in_tiles = value_and_gradients(LOSSES[name], tensors)
    assert len(whole) == len(in_tiles)
    for expected, found in zip(whole, in_tiles, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("parts", [2, 3])  # 7 samples, 14 projections and 5 features: uneven
@pytest.mark.parametrize("name", PARTS)
def test_the_mean_over_parts_is_the_whole(name, parts):
    loss = PARTS[name]
    options = {"off_diagonal_weight" if "barlow" in name else "temperature": 0.3}
    tensors = [unit(N, 0), unit(N, 1)]
    whole = value_and_gradients(partial(loss, **options), tensors)
    each = [
        value_and_gradients(partial(loss, share=(part, parts), **options), tensors)
        for part in range(parts)
    ]
    assert not torch.allclose(each[0][0], each[1][0])
    for i, expected in enumerate(whole):
        mean = torch.stack([values[i] for values in each]).mean(dim=0)
        torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-14)


def test_no_tile_is_larger_than_allowed_unless_it_is_one_row(monkeypatch):
    seen = []

    def loss(rows, shared):
        seen.append(rows.shape[0] * shared.shape[0])
        return (rows @ shared.T).mean()

    monkeypatch.setattr(tiles, "NUMBERS", 30)
    mean_in_tiles(loss, [unit(N, 0)], [unit(Q, 1)], width=Q)
    assert seen == [22, 22, 22, 11]
    seen.clear()
    monkeypatch.setattr(tiles, "NUMBERS", 3)
    mean_in_tiles(loss, [unit(N, 0)[:, :1]], [unit(Q, 1)[:, :1]], width=Q)
    assert seen == [11] * N


def test_a_tile_is_half_as_large_as_what_every_tile_reads(monkeypatch):
    """Or each of many small ones would read and differentiate all of it."""
    seen = []

    def loss(rows, shared):
        seen.append(len(rows))
        return (rows @ shared.T).mean()

    monkeypatch.setattr(tiles, "NUMBERS", 1)
    mean_in_tiles(loss, [unit(N, 0)], [unit(Q, 1)], width=Q)  # 55 numbers, 27 in a tile
    assert seen == [2, 2, 2, 1]


def test_what_needs_no_gradient_gets_none(monkeypatch):
    monkeypatch.setattr(tiles, "NUMBERS", 1)
    query, key, negatives = unit(N, 0).requires_grad_(), unit(N, 1), unit(Q, 2)
    info_nce(query, key, negatives, temperature=0.2).backward()
    assert query.grad is not None
    assert key.grad is None
    assert negatives.grad is None
    with torch.no_grad():
        value = info_nce(query, key, negatives, temperature=0.2)
    assert not value.requires_grad


def test_without_gradients_none_are_worked_out():
    seen = []

    def loss(rows, shared):
        seen.append(torch.is_grad_enabled())
        return (rows @ shared.T).mean()

    with torch.no_grad():
        mean_in_tiles(loss, [unit(N, 0).requires_grad_()], [unit(Q, 1)], width=Q)
    assert seen == [False]


def test_a_vector_has_the_loss_first_and_measurements_behind(monkeypatch):
    monkeypatch.setattr(tiles, "NUMBERS", 1)
    rows, shared = unit(N, 0).requires_grad_(), unit(Q, 1)

    def both(rows, shared):
        s = rows @ shared.T
        return torch.stack([s.square().mean(), s.amax(dim=1).mean()])

    expected = both(rows, shared)
    found = mean_in_tiles(both, [rows], [shared], width=Q)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(2 * found[0], rows)[0], torch.autograd.grad(2 * expected[0], rows)[0]
    )


def test_a_stored_row_may_change_between_loss_and_backward(monkeypatch):
    """The bank is written in place right after the loss has read it."""
    monkeypatch.setattr(tiles, "NUMBERS", 1)
    features, bank = unit(N, 0).requires_grad_(), unit(Q, 1)
    loss = instance_softmax(features, bank, torch.arange(N), temperature=0.2)
    expected = torch.autograd.grad(loss, features, retain_graph=True)[0]
    bank.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, features)[0], expected)
