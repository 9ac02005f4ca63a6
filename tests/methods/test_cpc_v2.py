"""CPC v2: four directions, none of which sees what it predicts."""

import pytest
import torch
from torch import nn

from builders import START, TinyBackbone
from similitude.errors import UserError
from similitude.images.views import PatchViewConfig
from similitude.losses import cpc_shared_info_nce
from similitude.method import Batch
from similitude.methods.cpc_v2 import CPCV2, CPCV2Config
from similitude.recipes import find_recipe, override


def method(**changes) -> CPCV2:
    torch.manual_seed(0)
    values = {
        "view": PatchViewConfig(patch_size=6, grid=6),
        "hidden_dim": 9,
        "projection_dim": 12,
        "skip": 1,
    }
    return CPCV2(TinyBackbone(), CPCV2Config(**{**values, **changes})).double()


def known_part(direction: int, row: int) -> torch.Tensor:
    """Positions of the image that a context may see, when it has come ``row`` rows far."""
    place = torch.arange(6)
    down = (place <= row)[:, None].expand(6, 6)
    return (down, down.T.flip(1), down.flip(0), down.T)[direction]


@pytest.mark.slow
@pytest.mark.parametrize("skip", [0, 2])
def test_no_prediction_sees_its_target_from_any_side(skip):
    cpc = method(skip=skip, prediction_steps=2, context_layers=6)
    for direction, predict in enumerate(cpc.predictor):
        for k in (1, 2):
            for row in range(6 - skip - k):
                latents = torch.randn(1, 6, 6, 8, dtype=torch.float64, requires_grad=True)
                _, predictions = predict(torch.rot90(latents, direction, dims=(1, 2)))
                predictions[k - 1][0, row].square().sum().backward()
                seen = latents.grad[0].any(dim=2)
                assert torch.equal(seen, known_part(direction, row))


def test_a_prediction_is_for_the_row_skip_and_k_further_and_against_all_targets():
    cpc = method(directions=1, prediction_steps=2)
    cpc.backbone = nn.Identity()
    latents = torch.randn(3, 6, 6, 8, dtype=torch.float64)
    loss = cpc.training_loss(Batch([latents], torch.arange(3)), START).loss
    (heads,) = cpc.predictor
    contexts, targets = heads.context(latents), heads.target(latents)
    expected = 0
    for k in (1, 2):
        rows, right = [], []
        for n in range(3):
            for row in range(6 - 1 - k):
                for column in range(6):
                    rows.append(0.1 * heads.steps[k - 1](contexts[n, row, column]))
                    right.append((n * 6 + row + 1 + k) * 6 + column)
        expected = expected + cpc_shared_info_nce(
            torch.stack(rows), targets.flatten(0, 2), torch.tensor(right)
        )
    torch.testing.assert_close(loss, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("directions", "turns"), [(1, [0]), (2, [0, 2]), (4, [0, 1, 2, 3])])
def test_directions_are_turned_images_with_heads_of_their_own(directions, turns):
    cpc = method(directions=directions)
    cpc.backbone = nn.Identity()
    latents = torch.randn(2, 6, 6, 8, dtype=torch.float64)
    loss = cpc.training_loss(Batch([latents], torch.arange(2)), START).loss
    single = method(directions=1)
    single.backbone = nn.Identity()
    losses = []
    for heads, turn in zip(cpc.predictor, turns, strict=True):
        single.predictor = nn.ModuleList([heads])
        turned = torch.rot90(latents, turn, dims=(1, 2))
        losses.append(single.training_loss(Batch([turned], torch.arange(2)), START).loss)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert len({value.item() for value in losses}) == directions


def test_the_scale_multiplies_predictions_alone():
    cpc, larger = method(directions=1), method(directions=1, prediction_scale=1.0)
    latents = torch.randn(2, 6, 6, 8, dtype=torch.float64)
    targets, predictions = cpc.predictor[0](latents)
    targets_of_larger, larger_predictions = larger.predictor[0](latents)
    torch.testing.assert_close(targets, targets_of_larger)
    for a, b in zip(predictions, larger_predictions, strict=True):
        torch.testing.assert_close(10 * a, b)


def test_a_grid_that_is_too_low_is_told():
    with pytest.raises(UserError, match="no row 6 below"):
        override(find_recipe("imagenet.cpc_v2"), ["method.skip=3"])
