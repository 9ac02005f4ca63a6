"""A network for each sensor, called as one."""

import pytest
import torch
from torch import nn

from similitude.errors import UserError
from similitude.multimodal.inputs import SensorInputs
from similitude.multimodal.networks import Towers
from similitude.nets.precision import Arithmetic, GradientCache, computing


class Tower(nn.Linear):
    num_features = 3

    def forward(self, x):
        self.dtype = super().forward(x).dtype
        return super().forward(x)


@pytest.fixture
def method():
    method = nn.Module()
    method.backbone = Towers({"left": Tower(2, 3), "right": Tower(4, 3)}, kept=("right",))
    return method


@pytest.fixture
def inputs():
    there = torch.tensor([True, False, True, True])
    of = {"left": torch.randn(4, 2), "right": torch.randn(4, 4)}
    return SensorInputs(of, {"left": ~there, "right": there})


def test_the_kept_sensors_features_are_those_of_its_tower_and_nothing_where_it_is_missing(
    method, inputs
):
    right = method.backbone.inner.networks["right"](inputs.of["right"])
    assert torch.equal(method.backbone(inputs), right * inputs.present["right"][:, None])
    assert torch.equal(method.backbone.parts(inputs)["right"], method.backbone(inputs))


def test_features_alone_are_computed_as_told(method, inputs):
    """A method that knows nothing of sensors calls the network, not what it has inside."""
    whole = method.backbone(inputs)
    with computing(method, Arithmetic(torch.bfloat16)):
        found = method.backbone(inputs)
    assert method.backbone.inner.networks["right"].dtype == torch.bfloat16
    torch.testing.assert_close(found, whole, rtol=0.02, atol=0.02)
    cache = GradientCache(2)
    with computing(method, Arithmetic(), cache):
        method.backbone(inputs).square().sum().backward()
        cache.backward()
    found = [p.grad.clone() for p in method.backbone.inner.networks["right"].parameters()]
    method.backbone.zero_grad()
    whole = method.backbone(inputs)
    whole.square().sum().backward()
    for own, parameter in zip(
        found, method.backbone.inner.networks["right"].parameters(), strict=True
    ):
        torch.testing.assert_close(own, parameter.grad)
    assert method.backbone.inner.networks["left"].weight.grad is None


def test_a_kept_sensor_that_is_missing_everywhere_is_named(method, inputs):
    with pytest.raises(UserError, match="the network of 'right' is kept, and this data has no"):
        method.backbone(SensorInputs({"left": inputs.of["left"]}, inputs.present))
