"""The batch of a step depends on the step alone, and the thread that makes it always ends."""

import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from similitude import randomness
from similitude.data.loader import Loader
from similitude.errors import UserError
from similitude.images.image_set import ImageSet
from similitude.randomness import BlockOrder, Blocks, permutation

N = 23


@pytest.fixture
def images():
    pixels = torch.arange(N, dtype=torch.uint8)[:, None, None, None].expand(N, 3, 4, 4)
    return ImageSet(pixels.contiguous(), torch.arange(N) / 10, [str(i) for i in range(N)])


def batches(images, **options):
    return list(Loader(images, **({"batch_size": 5, "seed": 3, "total_steps": 14} | options)))


def _fail_in_the_middle(loader):
    for _ in loader:
        raise KeyError


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("similitude-rows")]


def test_batches_follow_the_permutations(images):
    found = batches(images)
    assert len(found) == 14
    for step, batch in enumerate(found):
        epoch, position = divmod(step, 4)  # 23 // 5 batches, three images left over
        expected = permutation(3, epoch, N)[5 * position : 5 * position + 5]
        assert batch.epoch == epoch
        assert torch.equal(batch.index, expected)
        assert torch.equal(batch.rows.pixels, images.pixels[expected])
        assert torch.equal(batch.rows.aspect, images.aspect[expected])
        assert batch.rows.pixels.dtype == torch.uint8
    assert not torch.equal(found[0].index, found[4].index)
    assert not torch.equal(found[0].index, batches(images, seed=4)[0].index)


@pytest.mark.parametrize("first", [1, 4, 7, 13, 14])
def test_resumed_is_never_stopped(images, first):
    whole, rest = batches(images), batches(images, first_step=first)
    assert len(rest) == 14 - first
    for a, b in zip(whole[first:], rest, strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.rows.pixels, b.rows.pixels)
        assert a.epoch == b.epoch


def test_length_and_second_iteration(images):
    loader = Loader(images, batch_size=5, seed=0, first_step=3, total_steps=9)
    assert len(loader) == 6
    assert loader.steps_per_epoch == 4
    first, second = list(loader), list(loader)
    assert len(first) == 6
    assert all(torch.equal(a.index, b.index) for a, b in zip(first, second, strict=True))
    assert len(Loader(images, batch_size=5, seed=0, first_step=9, total_steps=9)) == 0
    assert threads() == []


def test_changing_a_batch_changes_nothing_else(images):
    loader = Loader(images, batch_size=5, seed=0, total_steps=4)
    for batch in loader:
        batch.rows.pixels.zero_()
        batch.index.zero_()
    assert images.pixels[-1].max() == N - 1
    *_, again = loader
    assert torch.equal(again.index, permutation(0, 0, N)[15:20])


def test_too_few_images_names_both_numbers(images):
    with pytest.raises(UserError, match=r"23 images are fewer than one batch of 24.*at most 23"):
        Loader(images, batch_size=24, seed=0, total_steps=1)
    with pytest.raises(UserError, match="at least 1"):
        Loader(images, batch_size=0, seed=0, total_steps=1)
    assert len(batches(images, batch_size=23)) == 14


@pytest.mark.slow
@pytest.mark.parametrize("how", ["break", "close", "forget", "raise"])
def test_leaving_early_leaves_no_thread(images, how):
    loader = Loader(images, batch_size=2, seed=0, total_steps=10**9)
    if how == "raise":
        with pytest.raises(KeyError):
            _fail_in_the_middle(loader)
    elif how == "break":
        for _ in loader:
            break
    else:
        iterator = iter(loader)
        next(iterator)
        assert len(threads()) == 1
        if how == "close":
            iterator.close()
        del iterator
    gc.collect()
    assert threads() == []


def test_an_error_in_the_thread_reaches_the_consumer(images, monkeypatch):
    loader = Loader(images, batch_size=5, seed=0, total_steps=9)
    original = Loader._gather
    third = batches(images, seed=0)[2].index

    def fail_at_two(self, index, *others):
        if torch.equal(index, third):
            raise OSError("the disk went away")
        return original(self, index, *others)

    monkeypatch.setattr(Loader, "_gather", fail_at_two)
    iterator = iter(loader)
    assert [next(iterator).epoch, next(iterator).epoch] == [0, 0]
    with pytest.raises(OSError, match="went away"):
        next(iterator)
    assert threads() == []


@pytest.mark.slow
def test_waiting_is_measured_and_hidden_by_work(images, monkeypatch):
    original = Loader._gather

    def slow(self, *arguments):
        time.sleep(0.03)
        return original(self, *arguments)

    monkeypatch.setattr(Loader, "_gather", slow)
    idle = Loader(images, batch_size=5, seed=0, total_steps=8)
    list(idle)
    assert idle.waiting_seconds >= 0.2  # eight times 0.03
    busy = Loader(images, batch_size=5, seed=0, total_steps=8)
    for _ in busy:
        time.sleep(0.06)
    assert busy.waiting_seconds < 0.15  # the first batch, and what a busy machine adds


def test_no_more_than_two_batches_ahead(images, monkeypatch):
    made = []
    original = Loader._gather

    def count(self, *arguments):
        made.append(arguments)
        return original(self, *arguments)

    monkeypatch.setattr(Loader, "_gather", count)
    iterator = iter(Loader(images, batch_size=5, seed=0, total_steps=100))
    next(iterator)
    time.sleep(0.2)
    assert len(made) == 3  # the one handed out and two ahead
    iterator.close()


@pytest.mark.parametrize("size", [5, 11])
def test_blocks_are_read_ahead_window_by_window(images, monkeypatch, size):
    """Those of a batch are there or on their way, and no more than two windows or the batch's."""
    monkeypatch.setattr(randomness, "WINDOW_BYTES", 1)  # of two blocks, then
    blocks = Blocks(np.array([3, 6, 9, 12, 15, 18, 21, N]), np.ones(8, np.int64))
    ahead, takes, take = [], [], ImageSet.take
    monkeypatch.setattr(ImageSet, "read_ahead", lambda self, some: ahead.append(list(some)))

    def taken(self, index):
        takes.append(({int(i) // 3 for i in index}, ahead[-1]))
        return take(self, index)

    monkeypatch.setattr(ImageSet, "take", taken)
    in_blocks = replace(images, blocks=blocks)
    found = batches(in_blocks, batch_size=size)
    for step, (batch, (needed, there)) in enumerate(zip(found, takes, strict=True)):
        epoch, position = divmod(step, N // size)
        order = BlockOrder(3, epoch, blocks)
        assert torch.equal(batch.index, order[size * position : size * (position + 1)])
        assert torch.equal(batch.rows.pixels, images.pixels[batch.index])
        assert needed <= set(there)
        assert len(there) <= max(4, 2 * -(-size // 6) + 2)
    assert ahead[-1] == []
    last = BlockOrder(3, epoch, blocks)
    assert set(takes[-1][1]) <= set(last.blocks(0, last.windows))  # no epoch follows
    rest = batches(in_blocks, batch_size=size, first_step=7)
    assert all(torch.equal(a.index, b.index) for a, b in zip(found[7:], rest, strict=True))
