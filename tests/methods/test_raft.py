import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch, small_config
from similitude.method import Batch, Progress
from similitude.methods.raft import RAFT


def make(**changes):
    torch.manual_seed(0)
    return RAFT(TinyBackbone(), small_config("raft", **changes)).double()


def drift(method):
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.2 * torch.randn_like(parameter))


def batch(method, n=8, seed=0):
    return random_batch(method, n, seed=seed, dtype=torch.float64)


def outputs(method, data):
    """Unit predictions of the online network and unit projections of the target, per view."""
    p = [method.predictor(method.projector(method.backbone(v))) for v in data.views]
    z = [method.target_projector(method.target_backbone(v)) for v in data.views]
    return [F.normalize(x, dim=1) for x in (*p, *z)]


def squared(a, b):
    return (a - b).square().sum(dim=1).mean()


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.7, 0.2), (1.0, 0.0), (2.0, -2.0)])
def test_views_align_and_run_away_from_the_same_view_in_the_teacher(alpha, beta):
    method = make(alignment_weight=alpha, cross_model_weight=beta)
    drift(method)
    data = batch(method)
    p1, p2, z1, z2 = outputs(method, data)
    alignment, cross = squared(p1, p2), (squared(p1, z1) + squared(p2, z2)) / 2
    output = method.training_loss(data, START)
    torch.testing.assert_close(output.loss, alpha * alignment - beta * cross)
    torch.testing.assert_close(output.metrics["alignment_loss"], alignment.detach())
    torch.testing.assert_close(output.metrics["cross_model_loss"], cross.detach())


@pytest.mark.parametrize("seed", range(5))
def test_with_a_negative_weight_it_bounds_byols_loss_from_above(seed):
    """The paper's BYOL': |p1 - z2|^2 <= 2 |p1 - p2|^2 + 2 |p2 - z2|^2, and the other order."""
    method = make(alignment_weight=2.0, cross_model_weight=-2.0)
    torch.manual_seed(seed)
    drift(method)
    data = batch(method, seed=seed)
    p1, p2, z1, z2 = outputs(method, data)
    byol = (squared(p1, z2) + squared(p2, z1)) / 2
    assert method.training_loss(data, START).loss >= byol


def test_running_away_is_rewarded():
    """One step of gradient descent with beta alone takes the prediction away from the teacher."""
    method = make(alignment_weight=0.0)
    drift(method)
    data = batch(method)
    before = method.training_loss(data, START)
    before.loss.backward()
    for p in method.parameters():
        if p.grad is not None:
            p.data.sub_(0.01 * p.grad)
    after = method.training_loss(data, START)
    assert after.metrics["cross_model_loss"] > before.metrics["cross_model_loss"]


def test_both_views_learn_through_both_terms_and_the_teacher_through_none():
    method = make()
    drift(method)
    views = [view.requires_grad_() for view in batch(method).views]
    method.training_loss(Batch(views, torch.arange(8)), START).loss.backward()
    assert all(view.grad.abs().max() > 0 for view in views)
    for name, p in method.named_parameters():
        assert (p.grad is None) == name.startswith("target_"), name


def test_without_predictor_a_student_that_is_its_teacher_has_nothing_to_run_from():
    method = make(predictor="none")
    output = method.training_loss(batch(method), START)
    assert output.metrics["cross_model_loss"] < 1e-12
    assert output.loss > 0  # alignment alone is left


@pytest.mark.parametrize("kind", ["mlp", "linear", "none"])
def test_heads_of_the_paper(kind):
    method = make(projector=kind, predictor=kind)
    assert method.training_loss(batch(method), START).loss.isfinite()
    if kind == "linear":
        assert isinstance(method.predictor, nn.Linear)
    if kind == "mlp":
        layers = [type(layer).__name__ for layer in method.predictor]
        assert layers == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert all(layer.bias is not None for layer in method.predictor[::3])


@pytest.mark.parametrize(("schedule", "decay"), [("constant", 0.8), ("cosine", 0.9)])
def test_the_teacher_follows_after_the_step(schedule, decay):
    method = make(ema_decay=0.8, ema_schedule=schedule)
    drift(method)
    before = method.target_backbone.layers[2].weight.clone()
    method.training_loss(batch(method), START).loss.backward()
    assert torch.equal(method.target_backbone.layers[2].weight, before)
    method.after_step(Progress(5, 10, 5))  # half of the cosine from 0.8 to 1
    expected = decay * before + (1 - decay) * method.backbone.layers[2].weight
    torch.testing.assert_close(method.target_backbone.layers[2].weight, expected.detach())
