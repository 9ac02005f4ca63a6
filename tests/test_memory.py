import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from similitude.errors import UserError
from similitude.memory import FeatureQueue


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
