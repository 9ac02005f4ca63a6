"""Barlow Twins' loss, heads and learning rates against its code."""

import pytest
import torch
from torch import nn

from builders import TinyBackbone
from similitude.losses import barlow_twins
from similitude.method import Progress
from similitude.methods import BarlowTwins, BarlowTwinsConfig, build_method
from similitude.recipes import find_recipe
from similitude.training.rates import build_optimizer, learning_rate


@pytest.mark.golden("barlow_loss")
def test_loss(vectors, close):
    z1, z2 = vectors["z1"].requires_grad_(), vectors["z2"].requires_grad_()
    loss = barlow_twins(z1, z2, off_diagonal_weight=vectors["lambd"])
    loss.backward()
    close(loss.item(), vectors["loss"])
    close(barlow_twins(z1, z2, off_diagonal_weight=0.0).item(), vectors["on_diag"])
    off_diagonal = barlow_twins(z1, z2, off_diagonal_weight=1.0).item() - vectors["on_diag"]
    close(off_diagonal, vectors["off_diag"])
    close(z1.grad, vectors["grad_z1"])
    close(z2.grad, vectors["grad_z2"])


def text(layer):
    if isinstance(layer, nn.Linear):
        return f"Linear({layer.in_features},{layer.out_features},bias={layer.bias is not None})"
    if isinstance(layer, nn.BatchNorm1d):
        return f"BatchNorm1d({layer.num_features},affine={layer.affine})"
    return type(layer).__name__


@pytest.mark.golden("barlow_heads")
def test_heads(vectors):
    hidden, *others, dim = map(int, vectors["projector_arg"].split("-"))
    backbone = TinyBackbone()
    backbone.num_features = 2048
    config = BarlowTwinsConfig(
        hidden_dim=hidden, projection_dim=dim, projector_layers=2 + len(others)
    )
    method = BarlowTwins(backbone, config)
    # the last of the listed layers, a BatchNorm without affine part, is inside the loss
    assert [*map(text, method.projector)] == vectors["layers"][:-1]
    assert vectors["layers"][-1] == f"BatchNorm1d({dim},affine=False)"


@pytest.mark.golden("schedules")
def test_learning_rates_of_weights_and_biases(vectors, close):
    """The recipe's optimizer as the trainer moves it: two rates, a floor, warm-up of ten epochs."""
    epochs, per_epoch = vectors["hp_epochs_barlow"], vectors["hp_ipe"]
    recipe = find_recipe("imagenet.barlow_twins")
    recipe = recipe.model_copy(update={"epochs": epochs, "batch_size": vectors["hp_bs"]})
    small = BarlowTwinsConfig(hidden_dim=8, projection_dim=8)
    groups = build_optimizer(build_method(small, TinyBackbone()), recipe).param_groups
    rates = [
        learning_rate(recipe, Progress(step, epochs * per_epoch, per_epoch))
        for step in range(epochs * per_epoch)
    ]
    for group, name in zip(groups, ("weights", "biases"), strict=True):
        scaled = torch.tensor(rates, dtype=torch.float64) * group["lr_scale"]
        close(scaled, vectors[f"barlow_lr_{name}"])
        assert {p.ndim > 1 for p in group["params"]} == {name == "weights"}
