import pytest
import torch
from torch.nn import functional as F

from similitude.losses import (
    in_batch_info_nce,
    info_nce,
    negative_cosine,
    normalized_regression,
    nt_xent,
)

LOSSES = {
    "nt_xent": lambda a, b: nt_xent(a, b, temperature=0.05),
    "in_batch_info_nce": lambda a, b: in_batch_info_nce(a, b, temperature=0.05),
    "info_nce": lambda a, b: info_nce(
        F.normalize(a, dim=1), F.normalize(b, dim=1), F.normalize(b, dim=1), temperature=0.05
    ),
    "negative_cosine": negative_cosine,
    "normalized_regression": normalized_regression,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_autocast_changes_nothing(loss):
    z1, z2 = torch.randn(2, 16, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(z1, z2)
    assert torch.equal(inside, loss(z1, z2))


@pytest.mark.parametrize("loss", [nt_xent, in_batch_info_nce])
def test_half_precision_inputs_give_a_full_precision_loss_and_their_own_gradient(loss):
    z1, z2 = torch.randn(2, 16, 32).bfloat16()
    z1.requires_grad_()
    value = loss(z1, z2, temperature=0.05)
    assert torch.equal(value, loss(z1.float(), z2.float(), temperature=0.05))
    value.backward()
    assert z1.grad.dtype == torch.bfloat16
    assert loss(z1.double(), z2.double(), temperature=0.05).dtype == torch.float64
