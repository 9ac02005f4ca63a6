"""SimCLR v2: the head of its code, and the memory network of its paper."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch
from similitude.losses import nt_xent, nt_xent_with_queue
from similitude.methods.simclr_v2 import SimCLRv2, SimCLRv2Config


def method(**changes) -> SimCLRv2:
    config = SimCLRv2Config(projector_hidden=16, projection_dim=12, queue_length=32, **changes)
    return SimCLRv2(TinyBackbone(), config).double()


def batch(seed=0):
    return random_batch(method(), seed=seed, dtype=torch.float64)


def test_the_head_has_three_layers_and_its_last_norm_no_offset():
    kinds = [type(layer).__name__ for layer in method().projector]
    assert kinds == 2 * ["Linear", "BatchNorm1d", "ReLU"] + ["Linear", "ScaleBatchNorm1d"]
    assert all(m.bias is None for m in method().projector if isinstance(m, nn.Linear))


def test_the_loss_is_nt_xent_of_both_views_in_one_batch():
    simclr, views = method(), batch().views
    z1, z2 = simclr.projector(simclr.backbone(torch.cat(views))).chunk(2)
    loss = simclr.training_loss(batch(), START).loss
    torch.testing.assert_close(loss, nt_xent(z1, z2, temperature=0.1))


def test_without_a_queue_there_is_no_second_network():
    assert {name.partition(".")[0] for name in method().state_dict()} == {"backbone", "projector"}


def test_the_queue_is_read_before_it_is_written():
    simclr = method(queue=True)
    with torch.no_grad():
        for p in simclr.backbone.parameters():
            p.add_(0.1 * torch.randn_like(p))  # target != online
    before, views = simclr.queue.snapshot(), batch().views
    twin = copy.deepcopy(simclr)
    z1, z2 = twin.projector(twin.backbone(torch.cat(views))).chunk(2)
    keys = F.normalize(twin.target_projector(twin.target_backbone(views[0])), dim=1)
    loss = simclr.training_loss(batch(), START).loss
    torch.testing.assert_close(loss, nt_xent_with_queue(z1, z2, before, temperature=0.1))
    torch.testing.assert_close(simclr.queue.snapshot()[:8], keys)
    assert torch.equal(simclr.queue.snapshot()[8:], before[8:])


def test_the_memory_network_gets_no_gradient_and_follows_after_the_step():
    simclr = method(queue=True, ema_decay=0.75)
    with torch.no_grad():
        for p in simclr.backbone.parameters():
            p.add_(0.1 * torch.randn_like(p))
    old = copy.deepcopy(simclr.target_backbone)
    simclr.training_loss(batch(), START).loss.backward()
    for target, was in zip(simclr.target_backbone.parameters(), old.parameters(), strict=True):
        assert target.grad is None
        assert torch.equal(target, was)
    simclr.after_step(START)
    for target, was, online in zip(
        simclr.target_backbone.parameters(),
        old.parameters(),
        simclr.backbone.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(target, 0.75 * was + 0.25 * online)


@pytest.mark.parametrize(("queue", "candidates"), [(False, 15), (True, 47)])
def test_chance_counts_the_queue(queue, candidates):
    assert method(queue=queue).chance_loss(8) == pytest.approx(math.log(candidates))


def test_weights_of_the_head_start_small():
    config = SimCLRv2Config(projector_hidden=256, projection_dim=256)
    for layer in SimCLRv2(TinyBackbone(), config).projector:
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
