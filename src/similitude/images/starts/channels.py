"""Published networks for images of other channels than red, green and blue."""

from dataclasses import replace

from timm.models import adapt_input_conv

from similitude.errors import UserError
from similitude.images.config import over_channels
from similitude.images.starts.architecture import empty_backbone
from similitude.images.views.config import told_channels
from similitude.nets.start import Start


def widened(start: Start, channels: int) -> Start:
    """A start whose first layer takes images of so many channels, in the way of timm.

    The weights of the three channels are repeated, and scaled so that all together weigh as
    before; those of one channel are their sum. Mean and std are repeated, or averaged, likewise.

    Args:
        start: Of three channels, or of as many as are wanted.
        channels: Of the images.

    Raises:
        UserError: It has other channels, or no first layer whose weights are of channels.
    """
    own = start.backbone.input_channels
    if own == channels:
        return start
    first = empty_backbone(start.backbone).pretrained_cfg.get("first_conv")  # type: ignore[union-attr]
    name = f"{first}.weight"
    weight = start.state.get(name)
    if own != 3 or weight is None or weight.ndim != 4 or weight.shape[1] != 3:
        raise UserError(
            f"{start.name} is of {told_channels(own)}, and these have {channels}: start from other "
            "weights, or leave out --init"
        )
    how = "added up" if channels == 1 else f"repeated, times 3 / {channels}"
    told = f"The first layer takes {told_channels(channels)} now: its weights of three are {how}"
    return replace(
        start,
        backbone=start.backbone.changed(channels=channels),
        state={**start.state, name: adapt_input_conv(channels, weight)},
        mean=over_channels(start.mean, channels),
        std=over_channels(start.std, channels),
        report=[
            *start.report,
            f"{told}, and mean and std {'averaged' if channels == 1 else 'repeated'}.",
        ],
    )
