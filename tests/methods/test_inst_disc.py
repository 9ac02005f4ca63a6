"""InstDisc: the constant Z, the noise, the bank, and what the paper compares."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch
from similitude.losses import instance_nce, instance_softmax
from similitude.method import Batch, Progress
from similitude.methods.inst_disc import InstDisc, InstDiscConfig

NEXT = Progress(step=1, total_steps=10, steps_per_epoch=5)


def method(**changes) -> InstDisc:
    torch.manual_seed(0)
    config = InstDiscConfig(num_samples=40, num_negatives=6, projection_dim=12, **changes)
    return InstDisc(TinyBackbone(), config).double()


def batch(seed=0, index=None):
    views = random_batch(method(), seed=seed, dtype=torch.float64).views
    return Batch(views, torch.arange(8) * 5 if index is None else index)


def features_of(inst_disc, batch):
    return F.normalize(inst_disc.projector(inst_disc.backbone(batch.views[0])), dim=1)


def rows_of(inst_disc, batch, step):
    noise = inst_disc.bank.draw(batch.index, 6, step=step)
    return inst_disc.bank.features[torch.cat([batch.index[:, None], noise], dim=1)]


def gradients(inst_disc):
    return [p.grad.clone() for p in inst_disc.parameters()]


def test_z_is_that_of_the_first_batch_and_stays():
    inst_disc = method()
    v, rows = features_of(inst_disc, batch()), rows_of(inst_disc, batch(), 0)
    expected = 40 * ((rows * v[:, None]).sum(dim=2) / 0.07).exp().mean()
    assert inst_disc.normalizer == 0
    inst_disc.training_loss(batch(), START)
    torch.testing.assert_close(inst_disc.normalizer, expected.detach())
    inst_disc.training_loss(batch(1), NEXT)
    torch.testing.assert_close(inst_disc.normalizer, expected.detach())


@pytest.mark.parametrize("decay", [0.75, 0.0])
def test_z_may_follow_the_batches(decay):
    """Z <- decay Z + (1 - decay) n mean exp(b . v / t), before the loss and without a gradient."""
    inst_disc = method(normalizer_decay=decay)
    inst_disc.training_loss(batch(), START)
    before = copy.deepcopy(inst_disc)
    loss = inst_disc.training_loss(batch(1), NEXT).loss
    v, rows = features_of(before, batch(1)), rows_of(before, batch(1), 1)
    estimate = 40 * ((rows * v[:, None]).sum(dim=2) / 0.07).exp().mean()
    z = (decay * before.normalizer + (1 - decay) * estimate).detach()
    torch.testing.assert_close(inst_disc.normalizer, z)
    expected = instance_nce(v, rows, temperature=0.07, normalizer=z, num_samples=40)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(gradients(inst_disc), gradients(before))


def test_the_noise_pushes_as_much_as_z_is_too_small():
    """The weights of K rows whose true Z is r times the one in use sum to K r / (K + r)."""
    k, r, t, n = 6, 3.0, 0.5, 40
    v = torch.tensor([[1.0, 0, 0]], dtype=torch.float64, requires_grad=True)
    noise = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64).expand(1, k, 3)
    rows = torch.cat([torch.zeros(1, 1, 3, dtype=torch.float64), noise], dim=1)
    z = n * math.exp(0.6 / t) / r  # every row has n P = r
    instance_nce(v, rows, temperature=t, normalizer=z, num_samples=n).backward()
    assert v.grad is not None
    push = v.grad[0, 1].item() / 0.8 * t  # across v, where the own row of zeros does not pull
    assert push == pytest.approx(k * r / (k + r), rel=1e-5)


def test_a_resumed_run_keeps_its_z_even_at_step_0():
    inst_disc = method()
    inst_disc.training_loss(batch(), START)
    twin = method()
    twin.load_state_dict(inst_disc.state_dict())
    twin.training_loss(batch(3), START)
    assert twin.normalizer == inst_disc.normalizer


def test_the_first_batch_sends_no_gradient_through_z():
    """The gradient is that of a run whose Z was this number from the start."""
    first, later = method(), method()
    first.training_loss(batch(), START).loss.backward()
    later.normalizer.copy_(first.normalizer)
    later.training_loss(batch(), START).loss.backward()
    for a, b in zip(gradients(first), gradients(later), strict=True):
        assert torch.equal(a, b)


def test_the_loss_reads_the_bank_and_then_moves_its_rows():
    inst_disc = method(ema_decay=0.25)
    inst_disc.training_loss(batch(), START)
    before = copy.deepcopy(inst_disc)
    loss = inst_disc.training_loss(batch(1), NEXT).loss
    v, rows = features_of(before, batch(1)), rows_of(before, batch(1), 1)
    expected = instance_nce(v, rows, temperature=0.07, normalizer=before.normalizer, num_samples=40)
    torch.testing.assert_close(loss, expected)
    index, old = batch(1).index, before.bank.features
    moved = F.normalize(0.25 * old[index] + 0.75 * v, dim=1)
    torch.testing.assert_close(inst_disc.bank.features[index], moved.detach())
    others = [i for i in range(40) if i not in index]
    assert torch.equal(inst_disc.bank.features[others], old[others])


def test_every_step_and_every_image_has_its_own_noise():
    """The loss of a pair of images does not depend on the batch that they come in."""
    inst_disc = method()
    inst_disc.normalizer.fill_(1000)
    views, index = batch()
    together = copy.deepcopy(inst_disc).training_loss(batch(), START).loss
    pairs = torch.arange(8).split(2)
    each = [
        copy.deepcopy(inst_disc).training_loss(Batch([views[0][i]], index[i]), START).loss
        for i in pairs
    ]
    torch.testing.assert_close(torch.stack(each).mean(), together)
    assert copy.deepcopy(inst_disc).training_loss(batch(), NEXT).loss != together


def test_the_full_softmax_has_the_gradient_of_the_bank_as_it_was():
    inst_disc = method(loss="softmax")
    before = copy.deepcopy(inst_disc)
    loss = inst_disc.training_loss(batch(), START).loss
    loss.backward()
    expected = instance_softmax(
        features_of(before, batch()), before.bank.features, batch().index, temperature=0.07
    )
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(inst_disc), gradients(before))


def test_the_parametric_softmax_learns_a_vector_for_each_image():
    inst_disc = method(loss="parametric")
    loss = inst_disc.training_loss(batch(), START).loss
    loss.backward()
    z = inst_disc.projector(inst_disc.backbone(batch().views[0]))  # eq. 1 knows no unit norm
    logits = z @ inst_disc.classifier.weight.T
    torch.testing.assert_close(loss, F.cross_entropy(logits, batch().index))
    assert inst_disc.classifier.weight.grad.any()
    assert not hasattr(method(), "classifier")


@pytest.mark.parametrize("kind", ["nce", "softmax", "parametric"])
def test_the_proximal_term_is_the_squared_distance_to_the_own_row(kind):
    plain, proximal = method(loss=kind), method(loss=kind, proximal_weight=3.0)
    own, v = plain.bank.features[batch().index], features_of(plain, batch())
    distance = (v - own).square().sum(dim=1).mean()
    gap = proximal.training_loss(batch(), START).loss - plain.training_loss(batch(), START).loss
    torch.testing.assert_close(gap, 3 * distance)


def test_similarity_to_the_own_row_is_reported_from_before_the_update():
    inst_disc = method()
    own, v = inst_disc.bank.features[batch().index], features_of(inst_disc, batch())
    told = inst_disc.training_loss(batch(), START).metrics["bank_similarity"]
    torch.testing.assert_close(told, F.cosine_similarity(v, own).mean().detach())


def test_chance_of_each_loss():
    assert method(loss="softmax").chance_loss(8) == pytest.approx(math.log(40))
    assert method(loss="parametric").chance_loss(8) == pytest.approx(math.log(40))
    k = 6
    binary = (1 + k) * math.log(1 + k) - k * math.log(k)
    assert method().chance_loss(8) == pytest.approx(binary, rel=1e-5)


def test_weight_decay_is_on_every_parameter():
    (group,) = method().param_groups()
    assert "weight_decay" not in group
    assert len(group["params"]) == len(list(method().parameters()))
