import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from similitude import memory
from similitude.errors import UserError
from similitude.memory import Center, FeatureQueue, MemoryBank


def numbered(start, stop, dim=2):
    """Keys that are told apart by their value."""
    return torch.arange(start, stop, dtype=torch.float32)[:, None].expand(-1, dim)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.data())
def test_the_queue_is_a_ring_of_the_latest_keys(length, data):
    """Against a plain list, whatever the sizes of the batches."""
    queue = FeatureQueue(length, 2)
    ring, cursor, written = queue.snapshot()[:, 0].tolist(), 0, 10
    for n in data.draw(st.lists(st.integers(0, length), max_size=6)):
        queue.enqueue(numbered(written, written + n))
        for key in range(written, written + n):
            ring[cursor] = key
            cursor = (cursor + 1) % length
        written += n
        assert queue.snapshot()[:, 0].tolist() == ring


def test_keys_that_wrap_around_are_not_dropped():
    queue = FeatureQueue(5, 2)
    queue.enqueue(numbered(0, 3))
    queue.enqueue(numbered(3, 7))
    assert queue.snapshot()[:, 0].tolist() == [5, 6, 2, 3, 4]


def test_a_whole_queue_fits_and_one_more_does_not():
    queue = FeatureQueue(4, 2)
    queue.enqueue(numbered(0, 4))
    assert queue.snapshot()[:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="5 keys do not fit into a queue of 4"):
        queue.enqueue(numbered(0, 5))


def test_an_empty_queue_is_refused():
    with pytest.raises(UserError, match="queue length is 0"):
        FeatureQueue(0, 8)


def test_starts_with_unit_rows_from_the_global_generator():
    torch.manual_seed(7)
    first = FeatureQueue(64, 8).snapshot()
    torch.manual_seed(7)
    assert torch.equal(FeatureQueue(64, 8).snapshot(), first)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(64))
    assert first.mean(dim=0).abs().max() < 0.3  # spread over the sphere
    assert len(first.unique(dim=0)) == 64


def test_a_snapshot_outlives_what_is_enqueued():
    """Backward runs after enqueue and must see the keys that the loss has read."""
    queue = FeatureQueue(6, 4)
    query = torch.randn(3, 4, requires_grad=True)
    negatives = queue.snapshot()
    before = negatives.clone()
    loss = (query @ negatives.T).sum()
    queue.enqueue(torch.randn(3, 4))
    loss.backward()
    assert torch.equal(negatives, before)
    torch.testing.assert_close(query.grad, before.sum(dim=0).expand(3, -1))


def test_all_state_is_in_the_state_dict():
    queue = FeatureQueue(5, 3)
    queue.enqueue(torch.randn(4, 3))
    twin = FeatureQueue(5, 3)
    twin.load_state_dict(copy.deepcopy(queue.state_dict()))
    keys = torch.randn(3, 3)
    queue.enqueue(keys)
    twin.enqueue(keys)
    assert torch.equal(queue.snapshot(), twin.snapshot())
    assert torch.equal(queue.cursor, twin.cursor)


def test_precision_follows_the_module_and_no_graph_is_kept():
    queue = FeatureQueue(5, 3).double()
    keys = F.normalize(torch.randn(2, 3, requires_grad=True), dim=1)
    queue.enqueue(keys)
    assert queue.snapshot().dtype == torch.float64
    assert not queue.snapshot().requires_grad
    assert list(queue.parameters()) == []
    assert queue.cursor.dtype == torch.int64


# --- memory bank -------------------------------------------------------------------------------


def bank_of(num_samples=6, dim=4):
    return MemoryBank(num_samples, dim).double()


def units(n, dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64), dim=1)


def test_the_bank_starts_with_rows_of_length_one_on_average():
    torch.manual_seed(7)
    first = MemoryBank(500, 48).features
    torch.manual_seed(7)
    assert torch.equal(MemoryBank(500, 48).features, first)
    assert first.square().sum(dim=1).mean().item() == pytest.approx(1, abs=0.02)
    assert first.abs().max() <= 0.25  # sqrt(3 / 48): uniform, not normal
    assert first.norm(dim=1).std() > 0.01  # and not normalized


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.5])
def test_a_row_moves_towards_its_feature_and_the_others_stay(decay):
    bank, new, index = bank_of(), units(3), torch.tensor([4, 0, 2])
    old = bank.features.clone()
    bank.update(index, new, decay)
    expected = F.normalize(decay * old[index] + (1 - decay) * new, dim=1)
    torch.testing.assert_close(bank.features[index], expected)
    assert torch.equal(bank.features[[1, 3, 5]], old[[1, 3, 5]])


def test_a_decay_of_one_only_scales_the_row():
    bank = bank_of()
    old = bank.features.clone()
    bank.update(torch.arange(6), units(6), 1.0)
    torch.testing.assert_close(bank.features, F.normalize(old, dim=1))


def test_the_bank_keeps_no_graph_and_its_own_precision():
    bank = MemoryBank(6, 4)
    bank.update(torch.tensor([1, 2]), units(2).requires_grad_(), 0.5)
    assert bank.features.dtype == torch.float32
    assert not bank.features.requires_grad
    assert list(bank.parameters()) == []
    assert set(bank.state_dict()) == {"features"}


def test_rows_read_before_an_update_outlive_it():
    """Backward runs after update and must see the rows that the loss has read."""
    bank, query = bank_of(), units(2, seed=1).requires_grad_()
    index = torch.tensor([0, 5])
    rows = bank.features[index]
    before = rows.clone()
    loss = (query * rows).sum()
    bank.update(index, units(2, seed=2), 0.5)
    loss.backward()
    torch.testing.assert_close(query.grad, before)


def test_an_empty_bank_is_refused():
    with pytest.raises(UserError, match="a memory bank for 0 samples"):
        MemoryBank(0, 8)


def test_drawn_rows_cover_the_bank_evenly():
    bank = MemoryBank(10, 2)
    rows = bank.draw(torch.arange(100), 100, step=3)
    assert rows.shape == (100, 100)
    assert rows.dtype == torch.int64
    counts = torch.bincount(rows.flatten(), minlength=10)
    assert len(counts) == 10
    assert (counts - 1000).abs().max() < 150  # five standard deviations
    own = rows == torch.arange(100)[:, None] % 10
    assert own.any()  # with the sample's own row


def test_draws_depend_on_step_and_sample_alone():
    bank = MemoryBank(1000, 2)
    rows = bank.draw(torch.arange(8), 20, step=3)
    assert torch.equal(bank.draw(torch.tensor([6, 1]), 20, step=3), rows[[6, 1]])
    assert torch.equal(bank.draw(torch.arange(8), 5, step=3), rows[:, :5])
    assert not torch.equal(bank.draw(torch.arange(8), 20, step=4), rows)
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize("num_samples", [1, 1000, 2**20 + 1, 1_281_167, 2**24 + 7, 2**25 + 6])
def test_a_draw_never_leaves_the_bank(monkeypatch, num_samples):
    """Not even by rounding, where the number drawn is the largest below one."""
    largest = torch.full((1, 1), 1 - 2**-24)
    monkeypatch.setattr(memory, "uniform", lambda *args: largest)
    bank = MemoryBank(1, 1)
    bank.features = torch.empty(1, 1).expand(num_samples, 1)
    row = bank.draw(torch.arange(1), 1, step=0).item()
    assert num_samples - 4 <= row <= num_samples - 1


def test_the_center_is_the_running_mean_of_all_rows():
    center, logits = Center(3, decay=0.9).double(), torch.randn(2, 8, 3, dtype=torch.float64)
    assert not center.value.any()
    center.update(logits[0])
    torch.testing.assert_close(center.value, 0.1 * logits[0].mean(dim=0))
    center.update(logits[1])
    expected = 0.09 * logits[0].mean(dim=0) + 0.1 * logits[1].mean(dim=0)
    torch.testing.assert_close(center.value, expected)
    assert "value" in center.state_dict()


def test_the_center_rests_in_evaluation_mode_as_running_statistics_do():
    center = Center(3, decay=0.9)
    center.update(torch.ones(4, 3))
    before = center.value.clone()
    center.eval().update(torch.full((4, 3), 9.0))
    assert torch.equal(center.value, before)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_ends_of_the_centers_decay(decay):
    center = Center(2, decay=decay)
    center.update(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert torch.equal(center.value, torch.tensor([2.0, 4.0]) * (1 - decay))
