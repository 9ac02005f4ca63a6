"""A convolution on a map no larger than its kernel is one matrix product."""

import pytest
import timm
import torch
from torch import nn

from similitude.images import small_maps as convolution
from similitude.images.small_maps import SmallMapConv2d, convert_convolutions


def pair(**settings):
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, **settings).double()
    ours = SmallMapConv2d(3, 5, **settings).double()
    ours.load_state_dict(plain.state_dict())
    return plain, ours


@pytest.fixture
def products(monkeypatch):
    """Counts the matrix products that took the place of a convolution."""
    shapes = []
    linear = nn.functional.linear

    def counted(x, weight, bias=None):
        shapes.append(tuple(weight.shape))
        return linear(x, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", counted)
    return shapes


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("settings", "size", "is_product"),
    [
        ({"kernel_size": 3, "padding": 1}, (1, 1), True),
        ({"kernel_size": 3, "padding": 1}, (2, 2), True),
        ({"kernel_size": 3, "padding": 1}, (1, 2), True),
        ({"kernel_size": 3, "padding": 1}, (3, 3), False),
        ({"kernel_size": 3, "padding": 1}, (2, 3), False),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, (2, 2), True),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, (4, 4), False),
        ({"kernel_size": 3}, (3, 3), True),
        ({"kernel_size": 7, "padding": 3, "stride": 2}, (4, 4), True),
        ({"kernel_size": (3, 5), "padding": (1, 2)}, (2, 3), True),
        ({"kernel_size": 1}, (1, 1), True),
        ({"kernel_size": 1}, (2, 2), False),
        ({"kernel_size": 3, "padding": 1, "dilation": 2}, (3, 3), False),
        ({"kernel_size": 3, "padding": "same"}, (2, 2), False),
        ({"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, (2, 2), False),
    ],
)
def test_values_and_gradients_are_those_of_a_convolution(
    settings, size, is_product, bias, memory_format, products
):
    plain, ours = pair(bias=bias, **settings)
    found = []
    for conv in (plain, ours):
        x = torch.linspace(-1, 1, 64 * 3 * size[0] * size[1], dtype=torch.float64)
        x = x.sin().view(64, 3, *size).contiguous(memory_format=memory_format).requires_grad_()
        out = conv(x)
        out.square().sum().backward()
        found.append([out, x.grad, *(p.grad for p in conv.parameters())])
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    assert bool(products) is is_product


def test_groups_stay_a_convolution(products):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    images = torch.ones(64, 4, 2, 2)
    expected = plain(images)
    convert_convolutions(plain)
    assert torch.equal(plain(images), expected)
    assert not products


@pytest.mark.parametrize("shape", [(convolution.FEWEST - 1, 3, 2, 2), (3, 2, 2)])
def test_few_samples_and_a_lone_one_stay_a_convolution(shape, products):
    plain, ours = pair(kernel_size=3, padding=1)
    images = torch.rand(shape, dtype=torch.float64)
    assert torch.equal(ours(images), plain(images))
    assert not products


@pytest.mark.slow
def test_the_gradient_reaches_every_part_of_the_kernel(monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST", 2)
    _, ours = pair(kernel_size=3, padding=1)
    x = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: ours(x), (x, ours.weight, ours.bias))


@pytest.mark.slow
def test_a_whole_network_keeps_its_function(products):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=0).double().eval()
    names = list(network.state_dict())
    images = torch.rand(64, 3, 32, 32, dtype=torch.float64)
    expected = network(images)
    state = torch.get_rng_state()
    convert_convolutions(network)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(network(images), expected, rtol=1e-10, atol=1e-10)
    assert list(network.state_dict()) == names
    # three on maps of 2 x 2, one from there to 1 x 1, three on 1 x 1
    assert products == 3 * [(1024, 1024)] + [(512, 1024)] + 3 * [(512, 512)]
