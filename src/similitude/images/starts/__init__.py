"""Published weights of image networks: from a file, from timm, by name."""

from similitude.images.starts.channels import widened
from similitude.images.starts.norms import unfit_norm, with_batchnorm
from similitude.images.starts.opening import of_run, open_start
from similitude.images.starts.published import EFFICIENTNET_LITE0 as DEFAULT_START
from similitude.images.starts.published import license_of

NAMED = (DEFAULT_START,)

__all__ = [
    "DEFAULT_START",
    "NAMED",
    "license_of",
    "of_run",
    "open_start",
    "unfit_norm",
    "widened",
    "with_batchnorm",
]
