"""DIET: one classifier over all images, and what continued pretraining changes."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from builders import IMAGE, START, TinyBackbone, random_batch
from similitude.images.canvases import Canvases
from similitude.method import Batch, Progress
from similitude.methods.diet import DIET, DIETConfig
from similitude.recipes import RECIPES


def method(**changes) -> DIET:
    torch.manual_seed(0)
    return DIET(TinyBackbone(), DIETConfig(num_samples=40, **changes)).double()


def batch(diet, seed=0, index=None):
    views = random_batch(diet, seed=seed, dtype=torch.float64).views
    return Batch(views, torch.arange(8) * 5 if index is None else index)


def gradients(diet):
    return {n: p.grad.clone() for n, p in diet.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3, 0.8])
def test_the_loss_is_pytorchs_cross_entropy_of_the_index(label_smoothing):
    diet = method(label_smoothing=label_smoothing)
    logits = diet.classifier(diet.backbone(batch(diet).views[0]))
    expected = F.cross_entropy(logits, batch(diet).index, label_smoothing=label_smoothing)
    loss = diet.training_loss(batch(diet), START).loss
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    loss.backward()
    ours = gradients(diet)
    diet.zero_grad()
    expected.backward()
    torch.testing.assert_close(ours, gradients(diet), rtol=1e-9, atol=1e-12)


def test_the_classifier_is_one_layer_without_bias_and_not_part_of_what_is_kept():
    diet = method()
    assert diet.classifier.bias is None
    assert diet.classifier.weight.shape == (40, TinyBackbone.num_features)
    assert diet.kept_backbone is diet.backbone
    assert not list(diet.projector.parameters())


def test_each_of_several_views_must_be_recognized():
    """The loss is the mean of that of each view alone."""
    diet = method(num_views=3)
    views, index = batch(diet)
    assert len(views) == len(diet.views(IMAGE)) == 3
    together = diet.training_loss(Batch(views, index), START)
    each = [diet.training_loss(Batch([view], index), START).loss for view in views]
    torch.testing.assert_close(together.loss, torch.stack(each).mean())
    torch.testing.assert_close(together.features, diet.backbone(views[0]).detach())


def test_several_views_of_an_image_are_drawn_apart():
    canvases = torch.randint(0, 256, (4, 3, 20, 20), dtype=torch.uint8)
    v1, v2 = method(num_views=2).views(IMAGE)(Canvases(canvases), torch.arange(4), seed=0, epoch=0)
    assert not torch.equal(v1, v2)


def test_the_index_is_that_of_the_data_set_and_not_of_the_batch():
    diet = method()
    order = torch.tensor([3, 1, 2, 0, 7, 5, 6, 4])
    views, index = batch(diet)
    loss = diet.training_loss(Batch(views, index), START).loss
    moved = diet.training_loss(Batch([views[0][order]], index[order]), START).loss
    torch.testing.assert_close(moved, loss)
    assert diet.training_loss(Batch(views, index[order]), START).loss != loss


def test_normalized_features_lose_their_length():
    diet, plain = method(normalize=True, temperature=0.5), method()
    h = diet.backbone(batch(diet).views[0])
    logits = F.normalize(h, dim=1) @ diet.classifier.weight.T / 0.5
    expected = F.cross_entropy(logits, batch(diet).index, label_smoothing=0.8)
    torch.testing.assert_close(diet.training_loss(batch(diet), START).loss, expected)
    for each, same in ((diet, True), (plain, False)):
        longer = copy.deepcopy(each)
        longer.backbone.layers.append(Twice())
        losses = [m.training_loss(batch(each), START).loss for m in (each, longer)]
        assert torch.allclose(*losses, rtol=1e-12) == same


class Twice(torch.nn.Module):
    def forward(self, x):
        return 2 * x


def test_a_projector_stands_between_where_it_is_asked_for():
    diet = method(projector="linear", projection_dim=5)
    assert diet.classifier.weight.shape == (40, 5)
    logits = diet.classifier(diet.projector(diet.backbone(batch(diet).views[0])))
    expected = F.cross_entropy(logits, batch(diet).index, label_smoothing=0.8)
    torch.testing.assert_close(diet.training_loss(batch(diet), START).loss, expected)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_backbone_stands_still_for_the_first_share_of_the_run(share):
    diet = method(freeze_backbone=share)
    optimizer = torch.optim.AdamW(diet.param_groups(), lr=0.1, weight_decay=0.5)
    for step in range(8):
        before = copy.deepcopy(diet.state_dict())
        progress = Progress(step, 8, 4)
        optimizer.zero_grad()
        diet.training_loss(batch(diet, seed=step), progress).loss.backward()
        diet.before_step(progress)
        optimizer.step()
        now = diet.state_dict()
        moved = {name.partition(".")[0] for name in now if (now[name] != before[name]).any()}
        assert moved == ({"classifier"} if step < 8 * share else {"backbone", "classifier"})


def test_chance_is_the_log_of_the_number_of_images_whatever_the_smoothing():
    for smoothing in (0.0, 0.8):
        diet = method(label_smoothing=smoothing)
        assert diet.chance_loss(8) == math.log(40)
        diet.classifier.weight.data.zero_()
        loss = diet.training_loss(batch(diet), START).loss
        assert loss.item() == pytest.approx(math.log(40), rel=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3, 0.8])
def test_the_floor_is_the_loss_of_a_classifier_that_gives_the_target(label_smoothing):
    diet = method(label_smoothing=label_smoothing)
    told = diet.training_loss(batch(diet), START).metrics["loss_floor"]
    target = torch.full((40,), label_smoothing / 40, dtype=torch.float64)
    target[0] += 1 - label_smoothing
    expected = F.cross_entropy(target.log().clamp_min(-1e9), target)
    assert told.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)


def test_weight_decay_is_on_every_parameter():
    (group,) = method().param_groups()
    assert "weight_decay" not in group
    assert len(group["params"]) == len(list(method().parameters()))


@pytest.mark.slow
def test_it_learns_to_tell_images_apart():
    diet = method(label_smoothing=0.0)
    optimizer = torch.optim.AdamW(diet.param_groups(), lr=0.05)
    first = diet.training_loss(batch(diet), START).loss.item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = diet.training_loss(batch(diet), START).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 < first


def test_the_published_optimizer_is_that_of_the_recipe():
    optimizer = RECIPES["imagenet.diet"]().optimizer
    assert (optimizer.name, optimizer.base_lr, optimizer.weight_decay) == ("adamw", 1e-3, 0.05)
