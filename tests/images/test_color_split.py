"""Color conversion against numbers of scikit-image 0.26, and one network for each group."""

import pytest
import torch
from torch import nn

from builders import TinyBackbone
from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig, build_backbone
from similitude.images.color_split import _RANGES, ColorSplit, rgb_to_lab, rgb_to_ycbcr

# skimage.color.rgb2lab and rgb2ycbcr
KNOWN = [
    ((1, 0, 0), (53.2405879437, 80.0923082257, 67.2027510444), (81.481, 90.203, 240)),
    ((0, 1, 0), (87.7350994883, -86.1830297444, 83.1797031754), (144.553, 53.797, 34.214)),
    ((0, 0, 1), (32.295672565, 79.1855909118, -107.8573002067), (40.966, 240, 109.786)),
    ((1, 1, 1), (100, -0.0024549379, 0.0046534212), (235, 128, 128)),
    ((0, 0, 0), (0, 0, 0), (16, 128, 128)),
    ((0.2, 0.4, 0.9), (46.8284285688, 28.1766086265, -69.4511441236), (102.9868, 191.5594, 96.493)),
    (
        (0.03, 0.01, 0.04),
        (1.1478862747, 2.3972873138, -2.4249495354),
        (20.2486, 130.60406, 129.69358),
    ),
    ((0.9, 0.8, 0.1), (81.839072752, -6.9674205019, 79.4503491502), (180.2719, 45.8203, 151.9498)),
]


@pytest.mark.parametrize(("convert", "column"), [(rgb_to_lab, 1), (rgb_to_ycbcr, 2)])
def test_colors_are_those_of_scikit_image(convert, column):
    rgb = torch.tensor([row[0] for row in KNOWN], dtype=torch.float64)
    expected = torch.tensor([row[column] for row in KNOWN], dtype=torch.float64)
    converted = convert(rgb.T[None, :, :, None])[0, :, :, 0].T
    torch.testing.assert_close(converted, expected, rtol=1e-8, atol=1e-8)


def test_autocast_leaves_colors_in_full_precision():
    images = torch.rand(2, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rgb_to_lab(images), (converted := rgb_to_lab(images)))
        assert converted.dtype == torch.float32
    assert torch.equal(rgb_to_lab(images), converted)


def test_gradients_are_finite_everywhere():
    images = torch.tensor([-0.5, 0.0, 1e-9, 0.04045, 0.5, 1.0, 1.5])
    images = images.expand(1, 3, 7, 7).clone().requires_grad_()
    rgb_to_lab(images).sum().backward()
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("space", ["lab", "ycbcr"])
def test_normalized_colors_fill_the_range_from_minus_one_to_one(space):
    steps = torch.linspace(0, 1, 18, dtype=torch.float64)
    rgb = torch.cartesian_prod(steps, steps, steps).T[None, :, :, None]
    center, width = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in _RANGES[space])
    colors = ((rgb_to_lab if space == "lab" else rgb_to_ycbcr)(rgb) - center) / width
    ends = torch.stack([colors.amin((0, 2, 3)), colors.amax((0, 2, 3))])
    if space == "lab":
        torch.testing.assert_close(ends.abs(), torch.ones_like(ends), atol=1e-4, rtol=0)
    else:  # the authors' constants for YCbCr are means and half widths, not centers
        torch.testing.assert_close(
            (ends[1] - ends[0]) / 2, torch.ones(3).double(), atol=2e-3, rtol=0
        )


class Channels(nn.Module):
    """Says what it is given: the mean of each channel."""

    num_features = 3

    def forward(self, x):
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("split", [(1, 2), (2, 1), (1, 1, 1)])
def test_every_channel_goes_to_one_network_in_its_place(split):
    images = torch.rand(4, 3, 5, 5)
    features = ColorSplit(Channels(), space="lab", split=split)(images)
    assert features.shape == (4, 3 * len(split))
    center, width = (torch.tensor(v).view(3, 1, 1) for v in _RANGES["lab"])
    whole = ((rgb_to_lab(images) - center) / width).mean(dim=(2, 3))
    parts = torch.stack(features.chunk(len(split), dim=1))
    torch.testing.assert_close(parts.sum(dim=0), whole)
    assert [int(part.any(dim=0).sum()) for part in parts] == list(split)
    assert torch.equal(parts[0][:, : split[0]], whole[:, : split[0]])


@pytest.mark.slow
def test_the_other_networks_have_weights_of_their_own_of_the_same_kind():
    network = build_backbone(BackboneConfig(name="resnet18", stem="small", base_width=8))
    before = {name: p.clone() for name, p in network.named_parameters()}
    split = ColorSplit(network, space="lab", split=(1, 1, 1))
    first, second, third = (dict(n.named_parameters()) for n in split.networks)
    assert split.num_features == 3 * 64
    for name, weights in before.items():
        assert torch.equal(first[name], weights)
        assert torch.equal(second[name].flatten().sort()[0], weights.flatten().sort()[0])
        if weights.ndim > 1:
            a, b = (w.flatten() - w.mean() for w in (first[name], second[name]))
            assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.2
            assert not torch.equal(second[name], third[name])
        else:  # norms start at 1 and 0, the last one of a block at 0
            assert torch.equal(second[name], weights)
    pointers = {p.data_ptr() for p in split.parameters()}
    assert len(pointers) == 3 * len(before)


def test_pretrained_weights_are_not_drawn_anew():
    network = build_backbone(BackboneConfig(stem="small", base_width=8))
    assert not network.has_pretrained_weights
    network.has_pretrained_weights = True
    first, second = ColorSplit(network, space="lab", split=(1, 2)).networks
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a is not b
        assert torch.equal(a, b)


def test_weights_are_all_its_state():
    split = ColorSplit(TinyBackbone(), space="lab", split=(1, 2))
    assert all(name.startswith("networks.") for name in split.state_dict())


@pytest.mark.parametrize("split", [(3, 1), (1, 1), (0, 3), (2, 2)])
def test_a_split_that_is_none_is_told(split):
    with pytest.raises(UserError, match="sum to 3"):
        ColorSplit(TinyBackbone(), space="lab", split=split)
