"""Networks over a grid of patches (CPC).

N samples, R rows and C columns of the grid, p side of a patch, D features of a patch.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from similitude.nets.backbone import Backbone


class PatchBackbone(nn.Module):
    """A backbone of patches as a backbone of images: the mean over the patches of an image.

    Args:
        network: patches [M, 3, p, p] to features [M, D].
        cut: images [N, 3, H, W] to their patches [N, R, C, 3, p, p].
    """

    def __init__(self, network: Backbone, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.cut = cut
        self.num_features = network.num_features

    def forward(self, x: Float[Tensor, "N ..."]) -> Float[Tensor, "N ... D"]:
        """Images [N, 3, H, W] to [N, D]; patches [N, R, C, 3, p, p] to [N, R, C, D]."""
        if x.ndim == 4:
            # row by row: evaluation would hold the activations of all patches at once
            rows = self.cut(x).split(1, dim=1)
            return torch.stack([self(row).mean(dim=(1, 2)) for row in rows]).mean(dim=0)
        return self.network(x.flatten(0, 2)).unflatten(0, x.shape[:3])


class GatedContext(nn.Module):
    """What the rows down to each position tell: gated layers of PixelCNN, the vertical ones only.

    Each layer is y = x + W (tanh(f) * sigmoid(g)), with f and g convolutions over a row and the one
    above it (van den Oord et al., 2016, arXiv:1606.05328, eq. 2). A position sees no row below it.

    Args:
        in_features: D.
        out_features: size of a context.
        layers: rows above that a position sees; 0: only its own vector.
    """

    def __init__(self, in_features: int, out_features: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_features, out_features, 1)
        gated = [nn.Conv2d(out_features, 2 * out_features, (2, 3)) for _ in range(layers)]
        self.gated = nn.ModuleList(gated)
        self.mixed = nn.ModuleList(nn.Conv2d(out_features, out_features, 1) for _ in range(layers))

    def forward(self, latents: Float[Tensor, "N R C D"]) -> Float[Tensor, "N R C E"]:
        """Contexts of all positions."""
        x = self.first(latents.permute(0, 3, 1, 2))
        for gated, mixed in zip(self.gated, self.mixed, strict=True):
            value, gate = gated(F.pad(x, (1, 1, 1, 0))).chunk(2, dim=1)  # one row on top: the mask
            x = x + mixed(value.tanh() * gate.sigmoid())
        return x.permute(0, 2, 3, 1)


class ResidualContext(nn.Module):
    """What the rows down to each position tell, in residual blocks (CPC v2, arXiv:1905.09272).

    The paper's pseudocode: 1 x 1, ReLU, 1 x 3 along the row, 2 x 1 with the row above, ReLU, 1 x 1,
    added to the input; a last ReLU after all blocks. A position sees no row below it.

    Args:
        features: D, of latents and of contexts.
        hidden_dim: width inside a block; 256 in the paper.
        layers: blocks, and rows above that a position sees; 5 in the paper. 0: no context at all.
    """

    def __init__(self, features: int, hidden_dim: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, hidden_dim, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden_dim, hidden_dim, (1, 3), padding=(0, 1)),
                nn.ZeroPad2d((0, 0, 1, 0)),  # one row on top: the masked convolution
                nn.Conv2d(hidden_dim, hidden_dim, (2, 1)),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden_dim, features, 1),
            )
            for _ in range(layers)
        )

    def forward(self, latents: Float[Tensor, "N R C D"]) -> Float[Tensor, "N R C D"]:
        """Contexts of all positions."""
        x = latents.permute(0, 3, 1, 2)
        for block in self.blocks:
            x = x + block(x)
        return F.relu(x).permute(0, 2, 3, 1)
