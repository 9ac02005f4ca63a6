"""Published weights from which a training starts, or which stand frozen beside it."""

from similitude.runs.starts.norms import unfit_norm, with_batchnorm
from similitude.runs.starts.opening import open_start
from similitude.runs.starts.start import Start

__all__ = ["Start", "open_start", "unfit_norm", "with_batchnorm"]
