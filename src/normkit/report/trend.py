"""The course of a norm over a run in twelve signs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.report.look import Look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Values = NDArray[np.float64]
    Steps = NDArray[np.int64]

SLICES = 12
FULL = 0.25  # full height is a change by this share of the first value, or the whole range where that is more


def slices(
    steps: Steps, values: Values, there: Flags, *, count: int = SLICES, of: Callable[[Values], Any] = np.mean
) -> list[float | None]:
    """Mean (or what `of` takes) of `values` in `count` equal ranges of steps, from the first step to the last.

    Ranges of steps, not of records: most records of a long run may lie in its first hundred steps. A range without a
    record takes the value of the last record before it; None outside the records in which the tensor was `there`.
    """
    count = min(count, len(steps))
    if not there.any():
        return [None] * count
    span = max(int(steps[-1] - steps[0]), 1)
    place = np.minimum((steps - steps[0]) * count // span, count - 1)[there]
    known = values[there]
    taken: list[float | None] = [None] * count
    for n in range(int(place[0]), int(place[-1]) + 1):
        begin, end = np.searchsorted(place, (n, n + 1))
        taken[n] = float(of(known[begin:end])) if begin < end else float(known[begin - 1])
    return taken


def heights(means: Sequence[float], first: float) -> list[int | None]:
    """0 to 7 for each slice, None for one that is not finite.

        h = 7 (m - low) / max(high - low, FULL |first|)        low and high over all slices and `first`

    So a change by 1 % looks flat, a fall looks like a fall, and what grows tenfold fills the height.

    >>> heights([1.0, 0.987], 1.0), heights([1.0, 0.5, 0.0], 1.0)
    ([0, 0], [7, 4, 0])
    """
    known = [value for value in (*means, first) if math.isfinite(value)]
    if not known:
        return [None] * len(means)
    low, high = min(known), max(known)
    full = max(high - low, FULL * abs(first) if math.isfinite(first) else 0.0) or 1.0
    return [round(7 * (mean - low) / full) if math.isfinite(mean) else None for mean in means]


def sparkline(steps: Steps, values: Values, there: Flags, look: Look) -> str:
    """One sign per slice: a height, a cross where NaN or infinity was seen, blank where there was no tensor."""
    means = slices(steps, values, there)
    known = [mean for mean in means if mean is not None]
    if not known:
        return ""
    levels = iter(heights(known, float(values[there][0])))
    return "".join(" " if mean is None else _sign(next(levels), look) for mean in means)


def _sign(level: int | None, look: Look) -> str:
    return look.broken if level is None else look.levels[level]
