import torch
from torch import nn

from builders import TinyBackbone, small_config
from similitude.methods.simclr import SimCLR
from similitude.nets import ScaleBatchNorm1d


def test_a_linear_head_is_the_mlp_without_its_hidden_layers():
    """As the reference code's: without bias, weights from N(0, 0.01), BatchNorm without offset."""
    torch.manual_seed(0)
    head = SimCLR(TinyBackbone(), small_config("simclr", projector="linear")).projector
    linear, norm = head
    assert isinstance(linear, nn.Linear)
    assert linear.bias is None
    assert 0.005 < linear.weight.std() < 0.015
    assert isinstance(norm, ScaleBatchNorm1d)
