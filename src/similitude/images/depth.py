"""Which values of deep pictures are black and white: one rule for all pictures of a data set."""

from dataclasses import replace

import numpy as np
from jaxtyping import Shaped

from similitude.images.decoding import UNIT, ValueRange
from similitude.images.source import EncodedSource, ImageSource

_LOOKED_AT = 200  # images, at even distances
_VALUES = 10_000  # of each
_OVERSHOOT = 0.05  # of the range: what resampling adds beyond black and white


def with_measured_values(source: ImageSource) -> ImageSource:
    """The source with the range of its deep pictures, measured on some of them; unchanged if none.

    Integers: from 0 to the largest number of as many bits as the largest value needs, so that 12
    bits in a file of 16 fill the range. Floats: [0, 1] or [0, 255] where they keep to it, but for
    what resampling overshoots. Everything else, as the values of a scanner: from the 0.1 to the
    99.9 per cent quantile.
    """
    if not isinstance(source, EncodedSource) or source.values is not None:
        return source
    n, k = len(source), min(_LOOKED_AT, len(source))
    looked_at = (source.deep_values(i * n // k, _VALUES) for i in range(k))
    deep = [values for values in looked_at if values is not None]
    if not deep:
        return source
    values = value_range(np.concatenate(deep))
    note = (
        f"some pictures are deeper than 8 bits: {values.black:g} is shown black and "
        f"{values.white:g} white in all of them, measured on {len(deep)}"
    )
    return replace(source, values=values, notes=(*source.notes, note))


def value_range(values: Shaped[np.ndarray, " N"]) -> ValueRange:
    """The range of some values of all pictures; see :func:`with_measured_values`."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return UNIT
    low, high = float(finite.min()), float(finite.max())
    if values.dtype.kind in "iu" and low >= 0:
        return ValueRange(0.0, float(2 ** max(8, int(high).bit_length()) - 1))
    for white, least in ((1.0, 0.0), (255.0, 127.0)):
        margin = _OVERSHOOT * white
        if values.dtype.kind == "f" and low >= -margin and least < high <= white + margin:
            return ValueRange(0.0, white)
    black, white = np.quantile(finite, (0.001, 0.999)).tolist()
    return ValueRange(black, white) if white > black else ValueRange(low, low + 1)
