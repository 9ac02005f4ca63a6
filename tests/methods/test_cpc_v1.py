"""CPC: nothing sees what it predicts, and negatives come from where they should."""

import copy

import pytest
import torch
from torch import nn

from builders import START, TinyBackbone, random_batch
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.views import PatchViewConfig
from similitude.losses import cpc_info_nce
from similitude.method import Batch, Progress
from similitude.methods.cpc_v1 import CPCV1, CPCV1Config
from similitude.recipes import find_recipe, override

VIEW = PatchViewConfig(patch_size=6, grid=6)
NEXT = Progress(step=1, total_steps=10, steps_per_epoch=5)


def method(**changes) -> CPCV1:
    torch.manual_seed(0)
    values = {"view": VIEW, "prediction_steps": 3, "hidden_dim": 7, "num_negatives": 5}
    return CPCV1(TinyBackbone(), CPCV1Config(**{**values, **changes})).double()


def batch(n=4, seed=0):
    return random_batch(method(), n, seed=seed, dtype=torch.float64)


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_no_prediction_sees_its_target_or_anything_below(skip, k):
    cpc = method(skip=skip)
    latents = torch.randn(2, 6, 6, 8, dtype=torch.float64)
    for row in range(6 - skip - k):
        changed = latents.clone()
        changed[:, row + k + skip :] = torch.randn(2, 6 - row - k - skip, 6, 8).double()
        before, after = (cpc.predictor[k - 1](cpc.context(x)[:, row]) for x in (latents, changed))
        assert torch.equal(before, after)
        changed[:, row] += 1
        assert not torch.equal(before, cpc.predictor[k - 1](cpc.context(changed)[:, row]))


def test_the_loss_is_the_mean_over_steps_of_eq_4_written_out():
    cpc = method(skip=1)
    latents = torch.randn(3, 6, 6, 8, dtype=torch.float64)
    cpc.backbone = nn.Identity()
    loss = cpc.training_loss(Batch([latents], torch.arange(3)), NEXT).loss
    contexts, terms = cpc.context(latents), []
    for k in (1, 2, 3):
        pool = [z for image in latents for z in image[1 + k :].flatten(0, 1)]
        each = (6 - 1 - k) * 6
        own = torch.arange(3 * each)
        drawn = cpc._draw(own, each, len(pool), k, NEXT)
        predictions, candidates = [], []
        for n in range(3):
            for row in range(6 - 1 - k):
                for column in range(6):
                    i = len(predictions)
                    predictions.append(cpc.predictor[k - 1](contexts[n, row, column]))
                    right = latents[n, row + 1 + k, column]
                    candidates.append(torch.stack([right, *(pool[j] for j in drawn[i])]))
        terms.append(cpc_info_nce(torch.stack(predictions), torch.stack(candidates)))
    torch.testing.assert_close(loss, torch.stack(terms).mean())


@pytest.mark.parametrize("negatives", ["batch", "same_image", "other_images"])
def test_negatives_come_from_the_images_they_should(negatives):
    cpc = method(negatives=negatives, num_negatives=400)
    each, images = 12, 5
    own = torch.arange(each * images)
    drawn = cpc._draw(own, each, each * images, 1, START)
    same = drawn // each == own[:, None] // each
    if negatives == "batch":
        assert same.double().mean().item() == pytest.approx(1 / images, abs=0.02)
    else:
        assert same.all() if negatives == "same_image" else not same.any()
    counts = torch.bincount(drawn.flatten(), minlength=each * images).double()
    assert len(counts) == each * images
    assert counts.std() < 0.1 * counts.mean()  # all alike


def test_negatives_are_new_at_every_step_and_a_function_of_it():
    cpc = method()
    own = torch.arange(24)
    first = cpc._draw(own, 8, 24, 1, START)
    assert torch.equal(first, cpc._draw(own, 8, 24, 1, START))
    assert not torch.equal(first, cpc._draw(own, 8, 24, 1, NEXT))
    assert not torch.equal(first, cpc._draw(own, 8, 24, 2, START))
    assert torch.equal(first[10:], cpc._draw(own[10:], 8, 24, 1, START))  # of a process's part


def test_without_context_a_prediction_knows_one_patch():
    cpc = method(context_layers=0)
    latents = torch.randn(1, 6, 6, 8, dtype=torch.float64, requires_grad=True)
    cpc.context(latents)[0, 3, 2].sum().backward()
    assert latents.grad[0].any(dim=2).nonzero().tolist() == [[3, 2]]


@pytest.mark.slow
def test_training_lowers_the_loss_on_a_pattern_that_can_be_predicted():
    cpc, data = method(negatives="other_images"), batch(8)
    optimizer = torch.optim.Adam(cpc.parameters(), lr=0.01)
    first = last = cpc.training_loss(data, START).loss.item()
    for step in range(40):
        loss = cpc.training_loss(data, Progress(step, 40, 40)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = loss.item()
    assert last < 0.6 * min(first, cpc.chance_loss(8))


@pytest.mark.parametrize("norm", [None, "groupnorm1", "layernorm2d"])
def test_batchnorm_alone_shows_patches_to_each_other(norm):
    options = {} if norm is None else {"norm_layer": norm}
    network = build_backbone(
        BackboneConfig(name="resnet18", stem="small", base_width=4, options=options)
    )
    cpc = CPCV1(network, CPCV1Config(view=VIEW, prediction_steps=3, hidden_dim=7))
    patches = random_batch(cpc, 2).views[0]
    changed = patches.clone()
    changed[:, 4:] += 1  # the rows below
    upper, upper_after = (cpc.backbone(x)[:, :4] for x in (patches, changed))
    leaks = not torch.allclose(upper, upper_after, atol=1e-5)
    assert leaks == (norm is None)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["cifar10.cpc_v1", "cifar10.cpc_v2", "imagenet.cpc_v1"])
def test_recipes_have_no_batchnorm(recipe):
    config = find_recipe(recipe).backbone
    assert not [m for m in build_backbone(config).modules() if isinstance(m, nn.BatchNorm2d)]


def test_micro_batches_cut_samples_and_images_are_the_mean_of_patches():
    cpc = method()
    images = torch.rand(3, 3, 20, 20, dtype=torch.float64)
    patches = cpc.backbone.cut(images)
    assert patches.shape == (3, 6, 6, 3, 6, 6)
    torch.testing.assert_close(cpc.backbone(images), cpc.backbone(patches).mean(dim=(1, 2)))
    torch.testing.assert_close(cpc.backbone(patches[1:2]), cpc.backbone(patches)[1:2])


def test_a_grid_that_is_too_low_is_told():
    with pytest.raises(UserError, match="no row 7 below"):
        override(find_recipe("imagenet.cpc_v1"), ["method.prediction_steps=6"])


def test_a_copy_trains_alike():
    cpc = method()
    twin = copy.deepcopy(cpc)
    assert torch.equal(
        cpc.training_loss(batch(), START).loss, twin.training_loss(batch(), START).loss
    )
