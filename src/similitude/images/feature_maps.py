"""What a backbone of images knows of each place: maps of several strides, for dense tasks.

N images of K channels and H x W pixels; C channels of a map of h x w places.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from similitude.errors import UserError


class FeatureMaps(nn.Module):
    """A backbone that gives maps in place of one row of features, as torchvision's detectors want.

    Maps are what timm's ``forward_intermediates`` gives: of a ResNet the outputs of its stages, of
    a ViT those of its last blocks, normalized and without class token, all of one stride.

    Args:
        backbone: of timm; a copy is kept, so that training it leaves the other as it is.
        size: side of the images on which maps are measured; a ViT takes no other.
        names: of the maps, the coarsest last; as many are given, the last ones.
        image_channels: K.

    Attributes:
        names: as given.
        channels: C of each map.
        strides: pixels of the image for each place, of each map.

    Raises:
        UserError: the network gives no maps, or fewer.
    """

    def __init__(
        self, backbone: nn.Module, size: int, names: Sequence[str], image_channels: int = 3
    ) -> None:
        super().__init__()
        if not hasattr(backbone, "forward_intermediates"):
            raise UserError(
                f"a {type(backbone).__name__} gives no feature maps: its method keeps more than "
                "one network of timm, or timm knows no maps of it"
            )
        self.backbone: Any = copy.deepcopy(backbone)
        self.names = tuple(names)
        try:
            with torch.inference_mode():
                maps = self(torch.zeros(1, image_channels, size, size))
        except AssertionError as error:
            raise UserError(
                f"a {type(backbone).__name__} does not give {len(names)} feature maps: name fewer"
            ) from error
        self.channels = [found.shape[1] for found in maps.values()]
        self.strides = [size // found.shape[-1] for found in maps.values()]

    def forward(self, images: Float[Tensor, "N K H W"]) -> dict[str, Float[Tensor, "N C h w"]]:
        """The maps by name, in the order of their strides."""
        maps = self.backbone.forward_intermediates(
            images, indices=len(self.names), norm=True, intermediates_only=True
        )
        return dict(zip(self.names, maps, strict=True))
