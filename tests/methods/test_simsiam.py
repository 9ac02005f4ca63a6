"""SimSiam: what the papers change in it: similarity, predictor, symmetry, alternation."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch
from similitude.errors import UserError
from similitude.losses import negative_cosine
from similitude.method import Progress
from similitude.methods.simsiam import SimSiam, SimSiamConfig
from similitude.recipes import RECIPES, override


def method(**changes) -> SimSiam:
    torch.manual_seed(0)
    config = SimSiamConfig(projection_dim=12, predictor_hidden=8, **changes)
    return SimSiam(TinyBackbone(), config).double()


def batch(seed=0):
    return random_batch(method(), seed=seed, dtype=torch.float64)


def outputs(simsiam, views):
    z = [simsiam.projector(simsiam.backbone(view)) for view in views]
    return z, [simsiam.predictor(each) for each in z]


def step(simsiam, number, rate=0.1):
    """One step of gradient descent, with all hooks; its loss."""
    progress = Progress(number, total_steps=10, steps_per_epoch=5)
    loss = simsiam.training_loss(batch(number), progress).loss
    loss.backward()
    with torch.no_grad():
        for parameter in simsiam.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
                parameter.grad = None
    simsiam.after_step(progress)
    return loss.detach()


def test_the_loss_is_the_mean_of_both_directions():
    simsiam = method()
    (z1, z2), (p1, p2) = outputs(simsiam, batch().views)
    expected = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
    torch.testing.assert_close(simsiam.training_loss(batch(), START).loss, expected)


def test_one_direction_is_the_first_view_against_the_second():
    simsiam = method(symmetric=False)
    (_, z2), (p1, _) = outputs(simsiam, batch().views)
    torch.testing.assert_close(simsiam.training_loss(batch(), START).loss, negative_cosine(p1, z2))


def test_cross_entropy_is_over_the_channels():
    """-softmax(z2) . log softmax(p1), Sec. 4.5."""
    simsiam = method(similarity="cross_entropy", symmetric=False)
    (_, z2), (p1, _) = outputs(simsiam, batch().views)
    expected = -(z2.softmax(dim=1) * p1.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(simsiam.training_loss(batch(), START).loss, expected)
    assert simsiam.chance_loss(8) == pytest.approx(math.log(12))
    assert method().chance_loss(8) == 0


def test_a_single_vector_can_be_the_predictor():
    """p = unit(z) + b, which begins as the identity and is trained."""
    simsiam = method(predictor="bias")
    (z, _), (p, _) = outputs(simsiam, batch().views)
    torch.testing.assert_close(p, F.normalize(z, dim=1))
    simsiam.predictor.bias.data.copy_(torch.arange(12.0))
    torch.testing.assert_close(simsiam.predictor(z), F.normalize(z, dim=1) + torch.arange(12.0))
    simsiam.training_loss(batch(), START).loss.backward()
    assert simsiam.predictor.bias.grad.any()
    assert any(p is simsiam.predictor.bias for p in simsiam.param_groups()[1]["params"])


@pytest.mark.slow
def test_steps_against_fixed_targets_see_the_network_of_their_first():
    """Three steps with targets of the first of them, then three with those of the fourth."""
    simsiam = method(alternating_steps=3)
    then = copy.deepcopy(simsiam)
    for number in range(6):
        if number == 3:
            then = copy.deepcopy(simsiam)
        now = copy.deepcopy(simsiam)
        _, (p1, p2) = outputs(now, batch(number).views)
        (z1, z2), _ = outputs(then, batch(number).views)
        expected = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        torch.testing.assert_close(step(simsiam, number), expected.detach())
        moved = (simsiam.projector[0].weight - now.projector[0].weight).abs().max()
        assert moved > 1e-6


def test_one_step_against_fixed_targets_is_simsiam():
    """Targets that are copied before every step are those of the network itself."""
    plain, copied = method(), method()
    for number in range(3):
        fixed = method(alternating_steps=2)
        for name in ("backbone", "projector"):
            state = getattr(copied, name).state_dict()
            getattr(fixed, name).load_state_dict(state)
            getattr(fixed, f"target_{name}").load_state_dict(state)
        fixed.predictor.load_state_dict(copied.predictor.state_dict())
        torch.testing.assert_close(step(fixed, number), step(plain, number))
        for name in ("backbone", "projector", "predictor"):
            getattr(copied, name).load_state_dict(getattr(fixed, name).state_dict())


def test_without_alternation_there_is_no_second_network():
    assert not any(name.startswith("target") for name in method().state_dict())


def test_fixed_targets_that_learn_are_refused():
    recipe = RECIPES["cifar10.simsiam"]()
    settings = ["method.alternating_steps=2", "method.stop_gradient=false"]
    with pytest.raises(UserError, match="fixes the targets"):
        override(recipe, settings)
    with pytest.raises(UserError, match="alternating_steps"):
        override(recipe, ["method.alternating_steps=0"])


def test_no_predictor_has_no_extra_gradient():
    assert "extra_center_cosine" in method().training_loss(batch(), START).metrics
    alone = method(predictor="none").training_loss(batch(), START).metrics
    assert not any(name.startswith("extra") for name in alone)


def test_a_bias_before_the_last_norm_is_trained_where_that_does_not_cancel_it():
    assert not method().projector[-2].bias.requires_grad
    assert method(head_norm="group").projector[-2].bias.requires_grad
