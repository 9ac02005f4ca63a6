"""(2+1)D convolutions, written with those of two dimensions, are those of three."""

import pytest
import torch
from torch.nn import functional as F

from similitude.video.networks import R2Plus1D, VideoNetworkConfig, _Block, _SpaceAndTime


@pytest.mark.parametrize("stride", [1, 2])
def test_space_then_time_is_two_convolutions_in_three_dimensions(stride):
    layer = _SpaceAndTime(3, 5, 7, stride=stride, steps=stride).eval()
    x = torch.randn(2, 3, 6, 8, 8)
    y, t = layer(x.transpose(1, 2).flatten(0, 1), 6)
    space, time = layer.space.weight[:, :, None], layer.time.weight[..., None]
    expected = F.conv3d(x, space, stride=(1, stride, stride), padding=(0, 1, 1))
    expected = layer.norm(expected.flatten(2)[..., None]).reshape(expected.shape).relu()
    expected = F.conv3d(expected, time, stride=(stride, 1, 1), padding=(1, 0, 0))
    assert t == expected.shape[2]
    torch.testing.assert_close(y, expected.transpose(1, 2).flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_a_block_has_as_many_weights_as_one_of_three_dimensions():
    """Sec. 3.5 of the paper: M = 27 C_in C_out / (9 C_in + 3 C_out)."""
    block = _Block(64, 64, 1)
    parts = (block.first, block.second)
    weights = sum(p.space.weight.numel() + p.time.weight.numel() for p in parts)
    assert weights == pytest.approx(2 * 27 * 64 * 64, rel=0.01)


def test_r2plus1d_18_has_the_published_size():
    network = VideoNetworkConfig().build()
    weights = sum(p.numel() for p in network.parameters())
    classifier = 400 * (512 + 1)  # of Kinetics
    assert weights + classifier == pytest.approx(33.3e6, rel=0.005)  # Table 2
    assert network.num_features == 512


def test_features_are_the_last_stage_of_clips_of_any_length():
    network = R2Plus1D(2, 4, (1, 1, 1)).eval()
    for count in (1, 5, 8):
        x = torch.randn(2, 2, count, 16, 16)
        stages = network.stages(x)
        assert [h.shape[1] for h in stages] == [4, 8, 16] == list(network.stage_widths)
        assert torch.equal(network(x), stages[-1])


def test_a_network_of_images_sees_each_frame():
    network = VideoNetworkConfig(name="timm:test_resnet").build().eval()
    x = torch.randn(2, 3, 4, 32, 32)
    frames = torch.stack([network.network(x[:, :, i]) for i in range(4)]).mean(0)
    torch.testing.assert_close(network(x), frames, rtol=1e-4, atol=1e-5)
