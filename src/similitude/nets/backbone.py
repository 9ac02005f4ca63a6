"""What every backbone is: a module that knows how many features it gives."""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:

    class Backbone(nn.Module):
        """Maps a view to features [N, D]; ``num_features`` is D."""

        num_features: int

else:
    # Networks of timm, which have the number, are of no class of ours.
    Backbone = nn.Module
