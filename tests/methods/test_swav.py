import copy
import math

import pytest
import torch
from torch.nn import functional as F

from builders import IMAGE, START, TinyBackbone, random_batch, small_config
from similitude.method import Progress
from similitude.methods.swav import SwAV
from similitude.optimizers import LARC


def make(**changes):
    torch.manual_seed(0)
    return SwAV(TinyBackbone(), small_config("swav", **changes)).double()


def batch(n=8, seed=0, method=None):
    return random_batch(method or make(), n, seed=seed, dtype=torch.float64)


def test_global_views_come_first_and_local_ones_are_smaller():
    views = make(local_views=3).views(IMAGE).views
    assert [view.size for view in views] == [12, 12, 8, 8, 8]
    assert len(make(local_views=0).views(IMAGE)) == 2


def test_the_backbone_runs_once_per_size(monkeypatch):
    method, shapes = make(), []
    forward = method.backbone.forward
    monkeypatch.setattr(method.backbone, "forward", lambda x: shapes.append(x.shape) or forward(x))
    method.training_loss(batch(4), START)
    assert shapes == [(8, 3, 12, 12), (24, 3, 8, 8)]


def test_prototypes_are_scaled_before_the_forward_pass_outside_the_graph():
    """Scaled outside the graph: the loss and its gradient are those of unit prototypes."""
    method = make()
    unit = copy.deepcopy(method)
    method.prototypes.weight.data.mul_(3.0)
    unit.prototypes.weight.data.copy_(F.normalize(method.prototypes.weight.data, dim=1))
    losses = [m.training_loss(batch(), START).loss for m in (method, unit)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(method.prototypes.weight.data, unit.prototypes.weight.data)
    torch.testing.assert_close(method.prototypes.weight.grad, unit.prototypes.weight.grad)
    # Through the normalization the gradient would be at right angles to each prototype.
    along = (method.prototypes.weight.grad * method.prototypes.weight.data).sum(dim=1)
    assert along.abs().max() > 1e-4
    assert method.prototypes.bias is None


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_assignments_carry_no_gradient_unless_asked_to(stop_gradient):
    """With a single pair of views, view 1 acts on the loss of view 2 through its code."""
    method = make(stop_gradient=stop_gradient, local_views=0)
    scores = torch.randn(8, 12, dtype=torch.float64, requires_grad=True)
    with torch.set_grad_enabled(not stop_gradient):
        code = method._assign(scores, 0)
    assert code.requires_grad is not stop_gradient
    seen = []
    original = method._assign
    method._assign = lambda *args: seen.append(original(*args)) or seen[-1]
    method.training_loss(batch(), START)
    assert [q.requires_grad for q in seen] == [not stop_gradient] * 2


def test_a_gradient_through_the_codes_survives_the_queue_moving_on():
    method = make(stop_gradient=False, queue_length=8)
    for seed in range(2):  # full at the second
        method.training_loss(batch(seed=seed), START).loss.backward()


@pytest.mark.slow
def test_prototypes_stay_in_the_first_steps_and_their_momentum_with_them():
    method = make(freeze_prototypes_steps=2)
    optimizer = LARC(method.param_groups(), 0.5, weight_decay=0.1)
    weights = []
    for step in range(3):
        progress = Progress(step, 10, 5)
        optimizer.zero_grad()
        method.training_loss(batch(seed=step), progress).loss.backward()
        before = method.prototypes.weight.detach().clone()
        method.before_step(progress)
        assert (method.prototypes.weight.grad is None) == (step < 2)
        assert all(p.grad is not None for p in method.projector.parameters())
        optimizer.step()
        weights.append((method.prototypes.weight - before).abs().max().item())
    assert weights[:2] == [0.0, 0.0]
    assert weights[2] > 0


@pytest.mark.slow
def test_the_queue_fills_newest_first_and_counts_once_full():
    method = make(queue_length=12)
    batches = [batch(seed=seed) for seed in range(4)]
    twin = make(queue_length=0)
    losses = []
    for one in batches[:3]:
        losses.append([m.training_loss(one, START).loss.item() for m in (method, twin)])
    # 8 of 12 after the first batch, full after the second; the third sees it.
    assert losses[0][0] == losses[0][1]
    assert losses[1][0] == losses[1][1]
    assert losses[2][0] != losses[2][1]
    assert method.queue_rows.shape == (2, 12, 12)
    rows = method.queue_rows.norm(dim=2)
    torch.testing.assert_close(rows, torch.ones_like(rows))


@pytest.mark.slow
def test_the_queues_rows_are_the_embeddings_of_their_own_view():
    method = make(queue_length=12)
    method.eval()  # BatchNorm's running statistics: an embedding is a function of its image
    first, second = batch(seed=1), batch(seed=2)
    method.training_loss(first, START)
    method.training_loss(second, START)
    for view in (0, 1):
        new, old = (
            F.normalize(method.projector(method.backbone(b.views[view])), dim=1)
            for b in (second, first)
        )
        torch.testing.assert_close(method.queue_rows[view], torch.cat([new, old[:4]]).detach())


@pytest.mark.slow
def test_the_loss_reads_the_queue_from_before_the_batch():
    method = make(queue_length=8)
    method.training_loss(batch(seed=1), START)  # full
    twin = copy.deepcopy(method)
    twin._enqueue = lambda embeddings: None
    same = batch(seed=2)
    a, b = method.training_loss(same, START).loss, twin.training_loss(same, START).loss
    assert torch.equal(a, b)
    assert not torch.equal(method.queue_rows, twin.queue_rows)


def test_the_queue_starts_at_its_epoch():
    method = make(queue_length=8, queue_start_epoch=2)
    method.training_loss(batch(), Progress(9, 20, 5))
    assert not method.queue_rows.any()
    method.training_loss(batch(), Progress(10, 20, 5))
    assert method.queue_rows.all(dim=2).any()


def test_a_queue_of_the_batchs_own_embeddings_leaves_its_codes_as_they_were():
    """Rows that stand twice are shared out twice; and the batch's own rows are the ones taken."""
    method = make(queue_length=8)
    z = F.normalize(torch.randn(8, 12, dtype=torch.float64), dim=1)
    scores = method.prototypes(z).detach()
    alone = method._assign(scores, 0)
    method.queue_rows[0], method.is_queue_full = z.flip(0), True
    torch.testing.assert_close(method._assign(scores, 0), alone)
    method.queue_rows[0] = F.normalize(torch.randn(8, 12, dtype=torch.float64), dim=1)
    assert (method._assign(scores, 0) - alone).abs().max() > 0.01


def test_softmax_assignments_lack_the_even_share():
    scores = torch.zeros(8, 12, dtype=torch.float64)
    scores[:, 3] = 1.0
    even = make()._assign(scores, 0)
    torch.testing.assert_close(even, torch.full_like(even, 1 / 12))
    greedy = make(assignment="softmax")._assign(scores, 0)
    assert greedy[:, 3].min() > 0.99


@pytest.mark.slow
def test_entropy_of_the_prototypes_tells_one_cluster():
    method = make(projector="none")
    entropy = method.training_loss(batch(64), START).metrics["prototype_entropy"]
    assert 0.5 < entropy <= math.log(12)
    same = batch(64)
    same = same._replace(views=[v[:1].expand_as(v).clone() for v in same.views])
    for view in same.views[1:2]:
        view.copy_(same.views[0])
    entropy = method.training_loss(same, START).metrics["prototype_entropy"]
    assert entropy == 0


def test_larc_gets_every_parameter_in_one_group():
    groups = make().param_groups()
    assert len(groups) == 1
    assert any(p.ndim == 1 for p in groups[0]["params"])
