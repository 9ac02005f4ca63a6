"""Published weights of image networks: from a file, from timm, by name."""

from similitude.images.starts.norms import unfit_norm, with_batchnorm
from similitude.images.starts.opening import of_run, open_start
from similitude.images.starts.published import EFFICIENTNET_LITE0

NAMED = (EFFICIENTNET_LITE0,)

__all__ = ["NAMED", "of_run", "open_start", "unfit_norm", "with_batchnorm"]
