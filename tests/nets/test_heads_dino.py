import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from similitude.nets import DINOHead, WeightNormLinear, frozen_copy, without_drop_path


def test_rows_are_g_v_over_its_length_as_in_pytorch():
    ours = WeightNormLinear(4, 6, train_scale=True).double()
    theirs = weight_norm(torch.nn.Linear(4, 6, bias=False)).double()
    ours.weight_g.data.uniform_(0.5, 2.0)
    theirs.parametrizations.weight.original0.data.copy_(ours.weight_g.data)
    theirs.parametrizations.weight.original1.data.copy_(ours.weight_v.data)
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    v = ours.weight_v
    rows = ours.weight_g * v / v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(ours.weight, rows)
    outer = torch.randn(6, 4, dtype=torch.float64)
    parameters = [v, ours.weight_g]
    for one, other in zip(
        torch.autograd.grad((ours.weight * outer).sum(), parameters),
        torch.autograd.grad((rows * outer).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_logits_are_cosines_while_the_last_layer_is_normalized():
    head = DINOHead(8, 12, hidden_dim=16, bottleneck_dim=6)
    logits = head(100 * torch.randn(50, 8))
    assert logits.shape == (50, 12)
    assert logits.abs().max() <= 1 + 1e-6
    head.last_layer.weight_v.data.mul_(7.0)  # the length of a row does not count
    x = torch.randn(5, 8)
    z = F.normalize(head.mlp(x), dim=1)
    rows = F.normalize(head.last_layer.weight_v, dim=1)
    torch.testing.assert_close(head(x), z @ rows.T)


@pytest.mark.parametrize(("norm_last_layer", "trained"), [(True, False), (False, True)])
def test_the_scale_is_trained_only_without_normalization(norm_last_layer, trained):
    head = DINOHead(8, 12, hidden_dim=16, bottleneck_dim=6, norm_last_layer=norm_last_layer)
    assert ("last_layer.weight_g" in dict(head.named_parameters())) is trained
    assert torch.equal(head.state_dict()["last_layer.weight_g"], torch.ones(12, 1))
    copy = frozen_copy(head)  # PyTorch's older weight_norm cannot be copied after a forward pass
    x = torch.randn(3, 8)
    assert torch.equal(head(x), copy(x))


def test_the_mlp_starts_from_a_narrow_normal_distribution():
    """0.02, not 0.2: with ten times the std the first targets are nearly one-hot."""
    torch.manual_seed(0)
    head = DINOHead(200, 12, hidden_dim=300, bottleneck_dim=100)
    linears = [layer for layer in head.mlp if isinstance(layer, torch.nn.Linear)]
    assert len(linears) == 3
    for layer in linears:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
        assert not layer.bias.any()


def test_gelu_is_the_exact_one():
    head = DINOHead(1, 2, hidden_dim=1, bottleneck_dim=1, layers=2)
    gelu = head.mlp[1]
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    exact = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    torch.testing.assert_close(gelu(x), exact)


def test_drop_path_is_switched_off_in_place():
    from timm.layers import DropPath

    net = torch.nn.Sequential(DropPath(0.9), torch.nn.Sequential(DropPath(0.5)))
    x = torch.ones(64, 3)
    assert not torch.equal(net(x), x)
    assert without_drop_path(net) is net
    assert net.training
    assert torch.equal(net(x), x)
