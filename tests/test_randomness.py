"""The generator is uniform, independent in every argument, and frozen."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from similitude import randomness
from similitude.randomness import BlockOrder, Blocks, Order, permutation, spread, uniform, uniforms

N = 20_000
INDEX = torch.arange(N)
BASE = {"seed": 0, "epoch": 0, "view": 0, "purpose": "flip"}


def draw(index=INDEX, count=1, **changes):
    arguments = BASE | changes
    return uniform(
        arguments["seed"], arguments["epoch"], index, arguments["view"], arguments["purpose"], count
    )


def test_numbers_are_uniform_in_zero_one():
    numbers = draw(count=4)
    assert numbers.dtype == torch.float32
    assert numbers.shape == (N, 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    cells = torch.bincount((numbers.flatten() * 256).long(), minlength=256)
    assert stats.chisquare(cells.numpy()).pvalue > 1e-3


def test_low_bits_are_uniform_too():
    lowest = (draw(count=4).flatten().double() * 2**24).long() % 16
    assert stats.chisquare(torch.bincount(lowest, minlength=16).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"seed": -1},
        {"seed": 2**40},
        {"epoch": 1},
        {"view": 1},
        {"purpose": "flop"},
        {"index": INDEX + 1},
        {"seed": 1, "epoch": -1},
    ],
    ids=str,
)
def test_every_argument_gives_independent_numbers(change):
    first, second = draw().squeeze(1), draw(**change).squeeze(1)
    pairs = torch.stack([first, second])
    assert torch.corrcoef(pairs)[0, 1].abs() < 4 / N**0.5
    # more than linear dependence: an 8 x 8 table of both
    table = torch.bincount((first * 8).long() * 8 + (second * 8).long(), minlength=64)
    assert stats.chisquare(table.numpy()).pvalue > 1e-4


def test_counters_are_independent():
    correlation = torch.corrcoef(draw(count=6).t()) - torch.eye(6)
    assert correlation.abs().max() < 4.5 / N**0.5


def test_seed_epoch_and_view_do_not_stand_in_for_each_other():
    swaps = [draw(seed=1), draw(epoch=1), draw(view=1), draw(seed=1, view=1), draw(epoch=1, view=1)]
    for i, one in enumerate(swaps):
        for other in swaps[:i]:
            assert (one == other).float().mean() < 1e-3


def test_batch_composition_order_and_integer_type_do_not_matter():
    numbers = draw(count=3)
    index = torch.tensor([17, 3, 19_999, 3])
    assert torch.equal(draw(index, count=3), numbers[index])
    assert torch.equal(draw(index.to(torch.int32), count=3), numbers[index])
    assert torch.equal(draw(index[:1], count=3), numbers[17:18])
    assert torch.equal(draw(index, count=1), numbers[index, :1])
    assert draw(index[:0]).shape == (0, 1)


def test_arguments_are_not_changed():
    index = torch.arange(5)
    draw(index)
    assert torch.equal(index, torch.arange(5))


def test_one_pass_over_many_purposes_gives_the_same_numbers():
    index = torch.tensor([5, 9])
    together = uniforms(3, 4, index, 1, {"hue": 2, "flip": 1, "crop area": 10})
    assert list(together) == ["hue", "flip", "crop area"]
    for purpose, numbers in together.items():
        assert torch.equal(numbers, uniform(3, 4, index, 1, purpose, numbers.shape[1]))


def test_one_pass_over_several_views_gives_the_same_numbers():
    index = torch.tensor([5, 9, 2])
    together = uniforms(3, 4, index, [7, 1], {"hue": 2, "flip": 1})
    for purpose, numbers in together.items():
        parts = [uniforms(3, 4, index, view, {"hue": 2, "flip": 1})[purpose] for view in (7, 1)]
        assert torch.equal(numbers, torch.cat(parts))


def test_numbers_are_frozen():
    """If this fails, every published run draws other views: do not change the constants."""
    assert (uniform(0, 0, torch.tensor([0, 1, 49_999]), 0, "flip", 3) * 2**24).tolist() == [
        [2986793, 2230255, 1522612],
        [8126048, 14631452, 9678816],
        [5356262, 4942521, 2146721],
    ]
    assert (uniform(-7, 12, torch.tensor([5]), 1, "hue", 2) * 2**24).tolist() == [
        [8797618, 13772612]
    ]
    assert permutation(3, 2, 10).tolist() == [0, 6, 2, 8, 9, 7, 3, 5, 1, 4]


def test_permutation_holds_every_sample_once_and_changes_with_seed_and_epoch():
    order = permutation(0, 0, 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, permutation(0, 0, 1000))
    for other in (permutation(1, 0, 1000), permutation(0, 1, 1000)):
        assert (order == other).float().mean() < 0.01
    assert permutation(0, 0, 0).shape == (0,)


@pytest.mark.slow
def test_permutation_mixes_places():
    places = torch.stack([permutation(0, epoch, 20).argsort() for epoch in range(4000)])
    # where sample 0 goes, and where samples 0 and 1 go relative to each other
    assert stats.chisquare(torch.bincount(places[:, 0], minlength=20).numpy()).pvalue > 1e-3
    assert abs((places[:, 0] < places[:, 1]).float().mean() - 0.5) < 4 * 0.5 / 4000**0.5


def test_an_order_is_the_permutation_where_samples_are_not_very_many():
    order = Order(3, 2, 1000)
    assert torch.equal(order[:], permutation(3, 2, 1000))
    assert torch.equal(order[10:20], permutation(3, 2, 1000)[10:20])
    order[:].zero_()
    assert torch.equal(order[:], permutation(3, 2, 1000))


@pytest.fixture
def computed(monkeypatch):
    """Orders that are computed place by place, as those of very many samples are."""
    monkeypatch.setattr(randomness, "MANY", 0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 1000, 99_991])
def test_a_computed_order_holds_every_sample_once(computed, n):
    order = Order(0, 0, n)
    assert torch.equal(order[:].sort().values, torch.arange(n))
    assert torch.equal(order[n // 3 : n // 2], order[:][n // 3 : n // 2])


def test_a_computed_order_is_always_the_same(computed):
    """The numbers are those of runs that were begun before."""
    assert Order(3, 0, 17)[:].tolist() == [
        *(4, 1, 2, 0, 10, 14, 13, 8, 6, 11, 12, 3, 16, 9, 7, 5, 15)
    ]
    assert Order(3, 0, 10**8)[:3].tolist() == [79512500, 72497242, 29528875]


def test_a_computed_order_mixes_places(computed):
    """Samples of every stretch come to every stretch, and every order of four comes as often."""
    order = Order(0, 0, 20_000)[:]
    cells = (torch.arange(20_000) // 1000 * 20 + order // 1000).bincount(minlength=400)
    assert ((cells - 50.0) ** 2 / 50).sum() < stats.chi2.ppf(0.999, 361)
    assert abs(torch.corrcoef(torch.stack([order[1:], order[:-1]]).double())[0, 1]) < 0.03
    counts = Counter(tuple(Order(0, epoch, 4)[:].tolist()) for epoch in range(480))
    assert len(counts) == 24
    assert sum((count - 20) ** 2 / 20 for count in counts.values()) < stats.chi2.ppf(0.999, 23)


def test_a_computed_order_changes_with_seed_and_epoch(computed):
    first = Order(0, 0, 10**8)[:1000]
    for other in (Order(1, 0, 10**8), Order(0, 1, 10**8)):
        assert (other[:1000] == first).sum() < 3


def blocks_of(lengths, sizes):
    return Blocks(np.cumsum(lengths), np.array(sizes))


@pytest.fixture
def in_blocks(monkeypatch):
    """Forty blocks of unequal lengths, of which about four have the bytes of a window."""
    monkeypatch.setattr(randomness, "WINDOW_BYTES", 400)
    return blocks_of([5 + i % 7 for i in range(40)], [80 + i for i in range(40)])


def test_an_order_by_blocks_holds_every_sample_once(in_blocks):
    order = BlockOrder(3, 1, in_blocks)
    n = len(order)
    assert n == in_blocks.ends[-1]
    assert torch.equal(order[:].sort().values, torch.arange(n))
    parts = [order[start : start + 11] for start in range(0, n, 11)]
    assert torch.equal(torch.cat(parts), order[:])
    assert len(order[n:]) == len(order[4:4]) == 0
    order[:5].zero_()
    assert torch.equal(BlockOrder(3, 1, in_blocks)[:5], order[:5])


def test_windows_are_blocks_side_by_side_in_a_random_order_of_them(in_blocks):
    order = BlockOrder(0, 0, in_blocks)
    assert order.blocks(0, order.windows) == permutation(0, 0, 40).tolist()
    seen = []
    for window in range(order.windows):
        blocks = order.blocks(window, window + 1)
        assert len(blocks) >= 2 or window == order.windows - 1
        assert sum(in_blocks.sizes[blocks]) <= 400
        samples = sorted(i for block in blocks for i in in_blocks.range(block))
        places = slice(len(seen), len(seen) + len(samples))
        assert {order.window(place) for place in range(*places.indices(len(order)))} == {window}
        assert sorted(order[places].tolist()) == samples
        assert order[places].tolist() != samples or len(samples) < 3
        seen += samples
    assert len(seen) == len(order)


def test_large_blocks_come_two_by_two_and_all_of_few_are_one_shuffle(monkeypatch):
    large = BlockOrder(0, 0, blocks_of([3] * 7, [10**12] * 7))
    assert [len(large.blocks(w, w + 1)) for w in range(large.windows)] == [2, 2, 2, 1]
    few = BlockOrder(0, 0, blocks_of([1000] * 20, [1000] * 20))
    assert few.windows == 1
    cells = (torch.arange(20_000) // 1000 * 20 + few[:] // 1000).bincount(minlength=400)
    assert ((cells - 50.0) ** 2 / 50).sum() < stats.chi2.ppf(0.999, 361)


def test_an_order_by_blocks_changes_with_seed_and_epoch_and_nothing_else(in_blocks):
    """The numbers are those of runs that were begun before."""
    first = BlockOrder(0, 0, in_blocks)[:]
    for other in (BlockOrder(1, 0, in_blocks), BlockOrder(0, 1, in_blocks)):
        assert (other[:] == first).float().mean() < 0.2
    assert first[:6].tolist() == [204, 56, 4, 205, 297, 296]


def test_some_samples_are_at_even_distances_or_of_few_blocks():
    assert spread(10, 3) == [0, 3, 6]
    assert spread(2, 3) == [0, 1]
    blocks = blocks_of([50] * 100, [1] * 100)
    for count, of in ((200, 8), (1000, 20), (10_000, 100)):
        some = spread(5000, count, blocks)
        assert len(some) == len(set(some)) == min(5000, count)
        assert some == sorted(some)
        assert len({i // 50 for i in some}) == of
