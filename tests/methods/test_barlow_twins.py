import pytest
import torch

from builders import START, TinyBackbone, random_batch, small_config
from similitude.losses import barlow_twins, barlow_twins_hsic
from similitude.methods.barlow_twins import BarlowTwins
from similitude.optimizers import LARS
from similitude.recipes import find_recipe
from similitude.recipes.choose import Surroundings
from similitude.recipes.images import choose_recipe

BOTH = pytest.mark.parametrize(
    ("name", "loss_of"), [("barlow_twins", barlow_twins), ("barlow_twins_hsic", barlow_twins_hsic)]
)


def make(name="barlow_twins", **changes):
    torch.manual_seed(0)
    return BarlowTwins(TinyBackbone(), small_config(name, **changes)).double()


def batch(method, n=8, seed=0):
    return random_batch(method, n, seed=seed, dtype=torch.float64)


@BOTH
def test_the_loss_is_the_one_of_the_name_on_the_projections(name, loss_of):
    method = make(name, off_diagonal_weight=0.37)
    views = batch(method).views
    z1, z2 = (method.projector(method.backbone(view)) for view in views)
    expected = loss_of(z1, z2, off_diagonal_weight=0.37)
    torch.testing.assert_close(method.training_loss(batch(method), START).loss, expected)


@BOTH
def test_a_subclass_under_another_name_keeps_its_loss(name, loss_of):
    """A user's own method is called module:Class in its config."""
    method, renamed = make(name), make(name)
    renamed.config = renamed.config.model_copy(update={"name": "mine:Mine"})
    losses = [m.training_loss(batch(m), START).loss for m in (method, renamed)]
    assert torch.equal(*losses)
    assert renamed.chance_loss(8) == method.chance_loss(8)


def test_the_whole_batch_of_all_processes_is_correlated(monkeypatch):
    """With the other process's rows beside its own, C is that of all of them, not a mean of two."""
    method = make()
    mine, others = (batch(method, seed=seed) for seed in (0, 1))
    rows = [method.projector(method.backbone(view)) for view in others.views]
    it = iter(rows)
    module = "similitude.methods.barlow_twins.gather"
    monkeypatch.setattr(module, lambda z: torch.cat([z, next(it)]))
    z = [
        torch.cat([method.projector(method.backbone(view)), row])
        for view, row in zip(mine.views, rows, strict=True)
    ]
    expected = barlow_twins(*z, off_diagonal_weight=method.config.off_diagonal_weight)
    torch.testing.assert_close(method.training_loss(mine, START).loss, expected)


def test_both_branches_learn_without_stop_gradient():
    method = make()
    views = [view.requires_grad_() for view in batch(method).views]
    method.training_loss(batch(method)._replace(views=views), START).loss.backward()
    assert all(view.grad.abs().max() > 0 for view in views)


def rank_after_training(weight):
    """Effective directions of the projections after some steps of gradient descent."""
    method = make(off_diagonal_weight=weight, projector_norm=False)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.02)
    data = batch(method, 64)
    for _ in range(150):
        optimizer.zero_grad()
        loss = method.training_loss(data, START).loss
        loss.backward()
        optimizer.step()
    z = method.projector(method.backbone(data.views[0])).detach()
    share = torch.linalg.svdvals((z - z.mean(0)) / z.std(0)).square()
    share = share / share.sum()
    return (-(share * share.log()).sum()).exp().item()


@pytest.mark.slow
def test_without_the_redundancy_term_fewer_directions_are_used():
    """The ablation of the paper: invariance alone is content with few features, repeated."""
    assert rank_after_training(1.0) > 1.5 * rank_after_training(0.0)


@BOTH
def test_biases_and_norms_learn_at_a_rate_of_their_own(name, loss_of):
    method = make(name)
    weights, others = method.param_groups()
    assert all(p.ndim > 1 for p in weights["params"])
    assert all(p.ndim <= 1 for p in others["params"])
    assert "lr_scale" not in weights
    assert others["lr_scale"] == pytest.approx(0.0048 / 0.2)
    assert others["weight_decay"] == 0.0


@BOTH
def test_chance_is_that_of_features_without_correlation(name, loss_of):
    method = make(name)
    z = torch.zeros(8, 12)
    weight = method.config.off_diagonal_weight
    expected = loss_of(z, z, off_diagonal_weight=weight).item()
    assert method.chance_loss(8) == pytest.approx(expected)
    assert method.chance_loss(1024) == method.chance_loss(8)


@pytest.mark.slow
def test_lars_hides_the_scale_of_the_loss_from_weights_but_not_from_biases():
    """Why the rate of 1-D tensors is its own: the paper scaled the loss by 0.024 instead."""
    moved = []
    for scale in (1.0, 0.024):
        method = make()
        before = {n: p.detach().clone() for n, p in method.named_parameters()}
        optimizer = LARS(method.param_groups(), lr=0.2, weight_decay=0.0)
        (scale * method.training_loss(batch(method), START).loss).backward()
        optimizer.step()
        moved.append({n: p.detach() - before[n] for n, p in method.named_parameters()})
    for name, step in moved[0].items():
        ratio = 1.0 if step.ndim > 1 else 0.024
        torch.testing.assert_close(moved[1][name], ratio * step, rtol=1e-5, atol=1e-12)


def test_small_batches_keep_lars_because_the_loss_is_in_the_thousands():
    recipe = choose_recipe("barlow_twins", Surroundings(50_000, [300], torch.device("cuda")))
    assert recipe.batch_size == 256
    assert recipe.optimizer == find_recipe("imagenet.barlow_twins").optimizer
    assert recipe.method.projection_dim == 8192


@BOTH
def test_without_a_projector_features_are_compared(name, loss_of):
    method = make(name, projector_layers=0)
    h1, h2 = (method.backbone(view) for view in batch(method).views)
    weight = method.config.off_diagonal_weight
    expected = loss_of(h1, h2, off_diagonal_weight=weight)
    torch.testing.assert_close(method.training_loss(batch(method), START).loss, expected)
    z = torch.zeros(8, TinyBackbone.num_features)
    assert method.chance_loss(8) == pytest.approx(loss_of(z, z, off_diagonal_weight=weight).item())
