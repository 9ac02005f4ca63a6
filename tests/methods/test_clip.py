"""CLIP compares every two sensors, with a scale that is learned and limited."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from builders import START
from similitude.errors import UserError
from similitude.method import Batch
from similitude.methods import build_method, make_config
from similitude.multimodal.inputs import SensorInputs
from similitude.multimodal.networks import Towers

SIZES = {"photo": 5, "text": 4, "sound": 3}


def tower(size):
    network = nn.Linear(size, 6)
    network.num_features = 6
    return network


def made(**settings):
    towers = Towers({name: tower(size) for name, size in SIZES.items()}, ("photo",))
    method = build_method(make_config("clip", {"projection_dim": 4, **settings}), towers).double()
    of = {name: torch.randn(7, size, dtype=torch.float64) for name, size in SIZES.items()}
    there = {name: torch.ones(7, dtype=torch.bool) for name in SIZES}
    there["text"][[1, 4]] = False
    there["sound"][2] = False
    return method, SensorInputs(of, there)


def expected(method, inputs, loss):
    """The mean over the pairs of sensors, written with NumPy."""
    z = {name: x.detach().numpy() for name, x in method.embeddings(inputs).items()}
    scale = min(np.exp(method.log_scale.item()), 100)
    return np.mean(
        [
            loss(scale * z[a][both] @ z[b][both].T)
            for a, b in combinations(z, 2)
            for both in [(inputs.present[a] & inputs.present[b]).numpy()]
        ]
    )


def softmax(logits):
    def one_way(x):
        return -(x.diagonal() - np.log(np.exp(x).sum(axis=1))).mean()

    return (one_way(logits) + one_way(logits.T)) / 2


@pytest.mark.parametrize("scale", [14.3, 300.0])
def test_softmax_of_every_pair_of_sensors(scale):
    method, inputs = made(scale=scale)
    output = method.training_loss(Batch([inputs], torch.arange(7)), START)
    np.testing.assert_allclose(output.loss.item(), expected(method, inputs, softmax), rtol=1e-6)
    assert output.metrics["scale"].item() == pytest.approx(min(scale, 100))


def test_sigmoid_of_every_pair_of_sensors():
    method, inputs = made(loss="sigmoid", bias=-3.0)

    def sigmoid(logits):
        y = 2 * np.eye(len(logits)) - 1
        return np.log1p(np.exp(-y * (logits - 3))).sum() / len(logits)

    output = method.training_loss(Batch([inputs], torch.arange(7)), START)
    np.testing.assert_allclose(output.loss.item(), expected(method, inputs, sigmoid), rtol=1e-6)
    output.loss.backward()
    assert method.bias.grad is not None
    assert method.log_scale.grad.abs() > 0


def test_one_sensor_is_refused():
    with pytest.raises(UserError, match="clip compares sensors"):
        build_method(make_config("clip", {}), Towers({"photo": tower(5)}, ("photo",)))
