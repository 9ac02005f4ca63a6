"""Published networks on images of other channels than red, green and blue."""

import pytest
import torch

from similitude.errors import UserError
from similitude.images.backbones import BackboneConfig
from similitude.images.starts import widened
from similitude.nets.start import Start


def start(**network):
    torch.manual_seed(0)
    config = BackboneConfig(**network)
    state = config.build().state_dict()
    return Start("s", "t", config, state, 32, (0.2, 0.4, 0.6), (0.1, 0.2, 0.3), [])


NETWORKS = (
    {"base_width": 4},
    {"base_width": 4, "stem": "small"},
    {"name": "vit_tiny_patch16_224", "options": {"img_size": 32, "patch_size": 8, "depth": 1}},
)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("channels", [1, 6])
def test_a_network_sees_equal_channels_as_it_saw_three(network, channels):
    """Sums over the channels stay what they were."""
    before = start(**network)
    after = widened(before, channels)
    x = torch.rand(2, 1, 32, 32)

    ours = after.build()(x.expand(-1, channels, -1, -1))

    assert torch.allclose(ours, before.build()(x.expand(-1, 3, -1, -1)), atol=1e-4)
    assert after.backbone.channels == channels
    assert after.fingerprint != before.fingerprint
    assert f"takes images of {channels} channel" in after.report[-1]


def test_weights_mean_and_std_are_repeated_or_averaged():
    before = start(base_width=4)
    four, one = widened(before, 4), widened(before, 1)
    weight = before.state["conv1.weight"]
    assert torch.allclose(four.state["conv1.weight"], weight[:, [0, 1, 2, 0]] * 3 / 4)
    assert torch.allclose(one.state["conv1.weight"], weight.sum(1, keepdim=True))
    assert four.mean == (0.2, 0.4, 0.6, 0.2)
    assert one.mean == pytest.approx((0.4,))
    assert one.std == pytest.approx((0.2,))


def test_a_start_of_as_many_channels_stays_and_of_others_is_refused():
    before = start(base_width=4, channels=4)
    assert widened(before, 4) is before
    with pytest.raises(UserError, match="s is of images of 4 channels, and these have 3"):
        widened(before, 3)
