"""Schedules: pure functions of the fraction of training done.

``fraction`` is step / total steps, or epoch / epochs where a paper changes the rate once per epoch.
Below 0 counts as 0 and above 1 as 1, so a run that goes on past its plan keeps the last value.
"""

from collections.abc import Sequence
from math import cos, pi


def linear(start: float, end: float, fraction: float) -> float:
    """Straight line from ``start`` at 0 to ``end`` at 1."""
    return start + (end - start) * _clamp(fraction)


def cosine(start: float, end: float, fraction: float) -> float:
    """Half a cosine from ``start`` at 0 to ``end`` at 1, flat at both ends."""
    return end + (start - end) * (1 + cos(pi * _clamp(fraction))) / 2


def warmup_cosine(
    peak: float, end: float, warmup_fraction: float, fraction: float, *, start: float = 0.0
) -> float:
    """Straight line from ``start`` to ``peak`` at ``warmup_fraction``, then a cosine to ``end``.

    As in the code of SimCLR, BYOL and MoCo v3: the first step has rate ``start``, 0 there.
    """
    if _clamp(fraction) < warmup_fraction:
        return linear(start, peak, fraction / warmup_fraction)
    if warmup_fraction >= 1:
        return peak
    return cosine(peak, end, (fraction - warmup_fraction) / (1 - warmup_fraction))


def step_decay(start: float, milestones: Sequence[float], factor: float, fraction: float) -> float:
    """``start`` times ``factor`` for every milestone reached.

    Args:
        start: value before the first milestone.
        milestones: fractions of training in [0, 1], e.g. ``(120 / 200, 160 / 200)`` in MoCo v1.
        factor: usually 0.1.
        fraction: of training done.
    """
    return start * factor ** sum(_clamp(fraction) >= milestone for milestone in milestones)


def _clamp(fraction: float) -> float:
    return min(max(fraction, 0.0), 1.0)
