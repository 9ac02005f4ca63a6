"""Published weights of image networks: from a file, from timm, by name."""

from similitude.images.starts.norms import unfit_norm, with_batchnorm
from similitude.images.starts.opening import open_start

__all__ = ["open_start", "unfit_norm", "with_batchnorm"]
