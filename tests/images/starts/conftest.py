"""Networks with random weights as other libraries build them, and files made of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn


def with_random_norms(network: nn.Module) -> nn.Module:
    """Every norm and token off its starting value, where a mix-up would not show."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.num_batches_tracked.fill_(7)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    for name, parameter in network.named_parameters():
        if name in ("cls_token", "pos_embed", "reg_token"):
            nn.init.normal_(parameter, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return with_random_norms(torchvision.models.resnet18())


@pytest.fixture(scope="session")
def resnet50() -> nn.Module:
    torch.manual_seed(0)
    return with_random_norms(torchvision.models.resnet50())


@pytest.fixture(scope="session")
def make_vit() -> Callable[..., nn.Module]:
    def make(name: str = "vit_small_patch16_224", **options: Any) -> nn.Module:
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=0, **{"depth": 2, **options})
        return with_random_norms(network)

    return make


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, name: str = "weights.pth", **options: Any) -> Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return write
