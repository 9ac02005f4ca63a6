"""The end-to-end mechanism: keys of the batch, with gradient, under split BatchNorm."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch
from similitude.losses import in_batch_info_nce
from similitude.method import Progress
from similitude.methods.end_to_end import EndToEnd, EndToEndConfig
from similitude.nets import SplitBatchNorm2d

NEXT = Progress(step=1, total_steps=10, steps_per_epoch=5)


class Convolution(nn.Module):
    """A backbone with BatchNorm that keeps the inputs of its calls."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.seen: list[torch.Tensor] = []

    def forward(self, x):
        self.seen.append(x)
        return self.norm(self.convolution(x)).relu().mean(dim=(2, 3))


def method(backbone=TinyBackbone, **changes) -> EndToEnd:
    torch.manual_seed(0)
    config = EndToEndConfig(projection_dim=12, **{"bn_splits": 2, **changes})
    return EndToEnd(backbone(), config).double()


def batch(seed=0):
    return random_batch(method(), seed=seed, dtype=torch.float64)


def projections(end_to_end):
    return [end_to_end.projector(end_to_end.backbone(view)) for view in batch().views]


@pytest.mark.parametrize("progress", [START, NEXT])
def test_query_and_key_meet_in_the_order_of_the_images(progress):
    end_to_end = method()
    loss = end_to_end.training_loss(batch(), progress).loss
    expected = in_batch_info_nce(*projections(end_to_end), temperature=0.07)
    torch.testing.assert_close(loss, expected)


def test_negatives_are_the_other_keys_of_the_batch():
    end_to_end = method()
    q, k = (F.normalize(z, dim=1) for z in projections(end_to_end))
    logits = q @ k.T / 0.07
    expected = (logits.logsumexp(dim=1) - logits.diagonal()).mean()
    torch.testing.assert_close(end_to_end.training_loss(batch(), START).loss, expected)


def test_keys_carry_gradient():
    """MoCo's keys do not: there the two gradients below would differ."""
    end_to_end = method()
    end_to_end.training_loss(batch(), START).loss.backward()
    ours = [p.grad.clone() for p in end_to_end.parameters()]
    twin = method()
    q, k = projections(twin)
    in_batch_info_nce(q, k, temperature=0.07).backward()
    torch.testing.assert_close(ours, [p.grad for p in twin.parameters()])
    stopped = method()
    q, k = projections(stopped)
    in_batch_info_nce(q, k.detach(), temperature=0.07).backward()
    half = [p.grad for p in stopped.parameters()]
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(ours, half, strict=True))


def test_both_directions_are_summed():
    end_to_end = method(symmetric=True)
    z1, z2 = projections(end_to_end)
    expected = in_batch_info_nce(z1, z2, temperature=0.07)
    expected = expected + in_batch_info_nce(z2, z1, temperature=0.07)
    torch.testing.assert_close(end_to_end.training_loss(batch(), START).loss, expected)
    assert end_to_end.chance_loss(8) == pytest.approx(2 * math.log(8))


def test_keys_are_encoded_in_another_order_at_every_step():
    end_to_end = method(Convolution, bn_splits=1)  # splits would sort the batch
    v1, v2 = batch().views
    seen = end_to_end.backbone.seen
    for progress in (START, NEXT):
        end_to_end.training_loss(batch(), progress)
    assert torch.equal(seen[0], v1)
    assert torch.equal(seen[2], v1)
    assert not torch.equal(seen[1], v2)
    assert not torch.equal(seen[1], seen[3])
    for keys in (seen[1], seen[3]):
        assert torch.equal(keys.flatten(1).sum(1).sort()[0], v2.flatten(1).sum(1).sort()[0])


def test_batchnorm_has_statistics_of_parts():
    end_to_end = method(Convolution, bn_splits=4)
    assert isinstance(end_to_end.backbone.norm, SplitBatchNorm2d)
    assert end_to_end.backbone.norm.num_splits == 4
    whole = method(Convolution, bn_splits=1)
    losses = [m.training_loss(batch(), START).loss for m in (end_to_end, whole)]
    assert losses[0] != losses[1]


def test_there_is_no_target_and_no_memory():
    assert all(p.requires_grad for p in method().parameters())
    before = method().state_dict()
    trained = method()
    trained.training_loss(batch(), START)
    trained.after_step(START)
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())
