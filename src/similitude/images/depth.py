"""Which values of deep pictures are black and white: one rule for all pictures of a data set."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from jaxtyping import Shaped

from similitude.images.decoding import UNIT, ValueRange
from similitude.images.source import ImageSource

_LOOKED_AT = 200  # images
_VALUES = 10_000  # of each
_OVERSHOOT = 0.05  # of the range: what resampling adds beyond black and white


def with_measured_values(source: ImageSource) -> ImageSource:
    """The source with the range of its deep pictures, measured on some of them, and what it means.

    Where DICOM files name a window, the median of these. Integers: from 0 to the largest number of
    as many bits as the largest value needs, so that 12 bits in a file of 16 fill the range. Floats:
    [0, 1] or [0, 255] where they keep to it, but for what resampling overshoots. Everything else,
    as the values of a scanner: from the 0.1 to the 99.9 per cent quantile.
    """
    if source.values is not None:
        return source
    some = source.spread(_LOOKED_AT)
    with ThreadPoolExecutor(source.readers, "similitude-looks") as threads:
        looks = list(threads.map(lambda i: source.look(i, _VALUES), some))
    deep = [look.values for look in looks if look.values is not None]
    windows = [look.window for look in looks if look.window is not None]
    notes, kept = [], "; 8 bits of them are kept, and 16 with depth=16" if source.depth == 8 else ""
    if deep:
        if windows:
            values = ValueRange(*np.median(np.array(windows), axis=0).tolist())
            how = f"the median of the windows that {len(windows)} files name"
        else:
            values, how = value_range(np.concatenate(deep)), f"measured on {len(deep)}"
        source = source.with_values(values)
        notes.append(
            f"some pictures are deeper than 8 bits: {values.black:g} is shown black and "
            f"{values.white:g} white in all of them, {how}{kept}"
        )
    elif any(look.is_cut for look in looks):
        notes += [f"some pictures are deeper than 8 bits{kept}"] if kept else []
    elif source.depth == 16:
        notes.append(
            f"none of {len(some)} pictures is deeper than 8 bits: with depth=8 the same takes half "
            "the memory"
        )
    return replace(source, notes=(*source.notes, *notes))


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
