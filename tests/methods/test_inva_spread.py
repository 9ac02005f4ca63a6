"""InvaSpread: one forward pass for both views, one loss over both."""

import pytest
import torch
from torch.nn import functional as F

from builders import START, TinyBackbone, random_batch
from similitude.losses import invariant_spread
from similitude.method import Batch
from similitude.methods.inva_spread import InvaSpread, InvaSpreadConfig


def method(**changes) -> InvaSpread:
    torch.manual_seed(0)
    return InvaSpread(TinyBackbone(), InvaSpreadConfig(projection_dim=12, **changes)).double()


def batch(seed=0):
    return random_batch(method(), seed=seed, dtype=torch.float64)


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_the_loss_is_that_of_unit_projections(weight):
    inva_spread = method(negative_weight=weight, temperature=0.3)
    z1, z2 = (F.normalize(inva_spread.projector(inva_spread.backbone(v))) for v in batch().views)
    loss = inva_spread.training_loss(batch(), START).loss
    expected = invariant_spread(z1, z2, temperature=0.3, negative_weight=weight)
    torch.testing.assert_close(loss, expected)


def test_both_views_pass_in_one_batch():
    """BatchNorm must see them together, as in the reference code."""
    sizes = []
    inva_spread = method()
    inva_spread.backbone.register_forward_hook(lambda m, x, y: sizes.append(len(y)))
    inva_spread.training_loss(batch(), START)
    assert sizes == [16]


def test_views_of_an_image_stay_paired():
    inva_spread = method()
    v1, v2 = batch().views
    paired = inva_spread.training_loss(batch(), START).loss
    index = batch().index
    both = [v1[[3, 0, 1, 2, 4, 5, 6, 7]], v2[[3, 0, 1, 2, 4, 5, 6, 7]]]
    torch.testing.assert_close(inva_spread.training_loss(Batch(both, index), START).loss, paired)
    one = [v1, v2.roll(1, 0)]
    assert (inva_spread.training_loss(Batch(one, index), START).loss - paired).abs() > 0.01


def test_any_size_of_batch_is_taken():
    """The reference code fixes it when the loss is built."""
    inva_spread = method()
    for n in (2, 3, 8):
        views = [view[:n] for view in batch().views]
        assert inva_spread.training_loss(Batch(views, torch.arange(n)), START).loss.isfinite()


def test_weight_decay_is_on_every_parameter():
    (group,) = method().param_groups()
    assert "weight_decay" not in group
    assert len(group["params"]) == len(list(method().parameters()))
