import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from similitude.errors import UserError
from similitude.nets import (
    ScaleBatchNorm1d,
    SplitBatchNorm2d,
    convert_split_batchnorm,
    ema_update_,
    frozen_copy,
    mlp,
    output_std,
)


def describe(head):
    """Layer by layer: L = Linear, B = BatchNorm; + with scale or weight and offset or bias."""
    words = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            words.append(f"L{layer.out_features}" + ("+bias" if layer.bias is not None else ""))
        elif isinstance(layer, nn.BatchNorm1d):
            words.append("B" + ("+scale" if layer.weight is not None else ""))
            words[-1] += "+offset" if layer.bias is not None else ""
        else:
            words.append(type(layer).__name__)
    return " ".join(words)


HEADS = {
    "SimCLR": ({"dims": [8, 8, 4], "last_norm": "scale"}, "L8 B+scale+offset ReLU L4 B+scale"),
    "MoCo v2": ({"dims": [8, 8, 4], "norm": False}, "L8+bias ReLU L4+bias"),
    "MoCo v1": ({"dims": [8, 4]}, "L4+bias"),
    "BYOL": (
        {"dims": [8, 16, 4], "hidden_bias": True, "last_bias": False},
        "L16+bias B+scale+offset ReLU L4",
    ),
    "SimSiam projector": (
        {"dims": [8, 6, 6, 6], "last_norm": "plain", "last_bias": True},
        "L6 B+scale+offset ReLU L6 B+scale+offset ReLU L6+bias B",
    ),
    "SimSiam predictor": ({"dims": [6, 3, 6]}, "L3 B+scale+offset ReLU L6+bias"),
    "SimSiam paper, affine": ({"dims": [8, 6], "last_norm": "affine"}, "L6 B+scale+offset"),
}


@pytest.mark.parametrize(("arguments", "layers"), HEADS.values(), ids=HEADS)
def test_heads_of_the_papers(arguments, layers):
    head = mlp(arguments.pop("dims"), **arguments)
    assert describe(head) == layers
    head(torch.randn(5, 8 if head[0].in_features == 8 else 6))


def test_scale_batchnorm_normalizes_and_scales_without_offset():
    norm, x = ScaleBatchNorm1d(3).double(), torch.randn(16, 3, dtype=torch.float64)
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    norm.weight.data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    y = norm(x)
    expected = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(y, expected)
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(norm))
    assert torch.equal(synced.weight, norm.weight)
    assert synced.bias is None
    norm.reset_parameters()
    assert torch.equal(norm.weight, torch.ones(3, dtype=torch.float64))
    assert not norm.running_mean.any()


def test_a_frozen_copy_equals_and_then_goes_its_own_way():
    online = mlp([4, 3, 2])
    target = frozen_copy(online)
    x = torch.randn(6, 4)
    assert torch.equal(target(x), online(x))
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())
    before = copy.deepcopy(target.state_dict())
    with torch.no_grad():
        for p in online.parameters():
            p.add_(1)
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())


@pytest.mark.slow
@settings(deadline=None, max_examples=20)
@given(st.floats(0, 1))
def test_ema_is_the_weighted_mean_of_parameters_and_leaves_buffers(decay):
    online, target = (mlp([4, 3, 2], last_norm="affine").double() for _ in range(2))
    for net in (online, target):
        net(torch.randn(7, 4, dtype=torch.float64))  # buffers differ too
    old = copy.deepcopy(target)
    seen = copy.deepcopy(online)
    ema_update_(target, online, decay)
    for new, t, o in zip(target.parameters(), old.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(new, decay * t + (1 - decay) * o)
    for new, t in zip(target.buffers(), old.buffers(), strict=True):
        assert torch.equal(new, t)
    for now, before in zip(online.state_dict().values(), seen.state_dict().values(), strict=True):
        assert torch.equal(now, before)


def test_ema_with_decay_0_copies_and_with_decay_1_stays_exactly():
    online, target = mlp([4, 3, 2]), mlp([4, 3, 2])
    old = copy.deepcopy(target)
    ema_update_(target, online, 1.0)
    assert all(map(torch.equal, target.parameters(), old.parameters()))
    ema_update_(target, online, 0.0)
    assert all(map(torch.equal, target.parameters(), online.parameters()))


def test_ema_refuses_networks_that_do_not_match():
    with pytest.raises(ValueError, match=r"longer|shorter"):
        ema_update_(mlp([4, 3, 2]), mlp([4, 2]), 0.9)
    with pytest.raises(ValueError, match="shape"):
        ema_update_(nn.Linear(4, 3, bias=False), nn.Linear(4, 1, bias=False), 0.9)
    ema_update_(nn.Identity(), nn.Identity(), 0.9)  # a method without a projector


def test_output_std_is_one_for_spread_and_zero_for_collapsed_outputs():
    z = 7 * torch.randn(4096, 64, requires_grad=True)
    assert output_std(z).item() == pytest.approx(1, abs=0.02)
    assert not output_std(z).requires_grad
    direction = torch.randn(64)
    collapsed = torch.rand(100, 1) * direction + 0.1 * direction  # lengths differ, not directions
    assert output_std(collapsed).item() == pytest.approx(0, abs=1e-5)


def by_separate_batchnorms(x, norm, splits):
    """S BatchNorm2d with the same weights, one per split: outputs, and mean running statistics."""
    parts = [copy.deepcopy(norm) for _ in range(splits)]
    output = torch.empty_like(x)
    for s, part in enumerate(parts):
        output[s::splits] = part(x[s::splits])
    mean = torch.stack([part.running_mean for part in parts]).mean(dim=0)
    var = torch.stack([part.running_var for part in parts]).mean(dim=0)
    return output, mean, var


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_split_batchnorm_is_separate_batchnorms(layout, momentum):
    norm = nn.BatchNorm2d(3, momentum=momentum).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    split = SplitBatchNorm2d(3, 4, momentum=momentum).double()
    split.load_state_dict(norm.state_dict())
    for _ in range(2):
        x = torch.randn(12, 3, 2, 5, dtype=torch.float64) * torch.arange(1, 13).view(-1, 1, 1, 1)
        x = x.contiguous(memory_format=layout).requires_grad_()
        expected, mean, var = by_separate_batchnorms(x, norm, 4)
        output = split(x)
        torch.testing.assert_close(output, expected)
        assert output.is_contiguous(memory_format=layout)
        weight = torch.randn_like(output)
        torch.testing.assert_close(
            torch.autograd.grad((output * weight).sum(), x),
            torch.autograd.grad((expected * weight).sum(), x),
        )
        torch.testing.assert_close(split.running_mean, mean)
        torch.testing.assert_close(split.running_var, var)
        norm.load_state_dict(split.state_dict())  # the next step starts from the same statistics


def test_split_batchnorm_evaluates_as_batchnorm():
    split, norm = SplitBatchNorm2d(3, 4), nn.BatchNorm2d(3)
    split(torch.randn(8, 3, 2, 2))
    norm.load_state_dict(split.state_dict())
    x = torch.randn(5, 3, 2, 2)  # any number of samples
    assert torch.equal(split.eval()(x), norm.eval()(x))


def test_split_batchnorm_without_scale_or_statistics():
    split = SplitBatchNorm2d(3, 2, affine=False, track_running_stats=False)
    x = torch.randn(4, 3, 5, 5)
    expected = torch.empty_like(x)
    for s in range(2):
        expected[s::2] = F.batch_norm(x[s::2], None, None, training=True)
    torch.testing.assert_close(split(x), expected)
    torch.testing.assert_close(split.eval()(x), F.batch_norm(x, None, None, training=True))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="batch of 10 does not divide into 4"):
        SplitBatchNorm2d(3, 4)(torch.randn(10, 3, 2, 2))


@pytest.mark.slow
def test_conversion_keeps_everything_but_the_statistics():
    net = timm.create_model("resnet18", num_classes=0)
    weights, keys = list(net.parameters()), list(net.state_dict())
    twin = copy.deepcopy(net)
    x = torch.randn(8, 3, 32, 32)
    converted = convert_split_batchnorm(net, 4)
    assert converted is net
    assert list(net.state_dict()) == keys
    assert all(a is b for a, b in zip(net.parameters(), weights, strict=True))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert {type(m) for m in norms} == {SplitBatchNorm2d}
    assert torch.equal(net.eval()(x), twin.eval()(x))
    assert not torch.allclose(net.train()(x), twin.train()(x), atol=1e-3)
    assert copy.deepcopy(net)(x).shape == (8, 512)


def test_conversion_can_be_repeated_and_one_split_changes_nothing():
    net = nn.Sequential(nn.BatchNorm2d(3))
    convert_split_batchnorm(convert_split_batchnorm(net, 4), 1)
    x = torch.randn(7, 3, 2, 2)
    assert torch.equal(net(x), nn.BatchNorm2d(3)(x))
    with pytest.raises(UserError, match="0 splits"):
        convert_split_batchnorm(net, 0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_converted_network_has_the_samples_of_its_input_in_order(layout):
    """Layers that are not converted as a whole sort for themselves: the same, more slowly."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3))
    net = nn.Sequential(*net, nn.BatchNorm2d(6)).double().to(memory_format=layout)
    plain = copy.deepcopy(net)
    for i in (1, 4):
        norm = SplitBatchNorm2d(6, 4).double()
        norm.load_state_dict(plain[i].state_dict())
        plain[i] = norm
    convert_split_batchnorm(net, 4)
    x = torch.randn(12, 3, 9, 7, dtype=torch.float64).contiguous(memory_format=layout)
    for _ in range(2):
        torch.testing.assert_close(net(x), plain(x))
    for ours, theirs in zip(net.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(UserError, match="batch of 10 does not divide into 4"):
        net(x[:10])


def test_a_network_without_batchnorm_takes_any_batch():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten())
    x = torch.randn(10, 3, 5, 5)
    expected = net(x)
    assert torch.equal(convert_split_batchnorm(net, 4)(x), expected)


def test_conversion_refuses_a_batchnorm_that_does_more():
    net = nn.ModuleDict({"stem": timm.layers.BatchNormAct2d(3)})
    with pytest.raises(UserError, match="'stem' is a BatchNormAct2d"):
        convert_split_batchnorm(net, 8)
    convert_split_batchnorm(net, 1)


def test_in_a_head_of_group_norm_no_row_meets_another():
    head = mlp([8, 16, 12], norm="group", last_norm="plain").train()
    x = torch.randn(5, 8)
    alone = torch.cat([head(row[None]) for row in x])
    torch.testing.assert_close(head(x), alone)
    assert [type(layer) for layer in head].count(nn.GroupNorm) == 2
    assert not list(head[-1].parameters())
