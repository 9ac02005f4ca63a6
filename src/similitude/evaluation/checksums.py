"""Weights and features in a few characters: whether scores of before are of the same."""

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from similitude.evaluation.features import Features


def checksum(backbone: nn.Module) -> str:
    """Of the weights, in a few characters."""
    found = 0
    for tensor in backbone.state_dict().values():
        found = zlib.crc32(_bytes(tensor), found)
    return f"{found:08x}"


def checksum_of_features(parts: Sequence[Features]) -> str:
    """Of their names, labels and pixels, in a few characters."""
    found = 0
    for part in parts:
        assert part.y is not None
        found = zlib.crc32("\n".join(part.names).encode(), found)
        found = zlib.crc32(_bytes(part.x), zlib.crc32(_bytes(part.y), found))
    return f"{found:08x}"


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
