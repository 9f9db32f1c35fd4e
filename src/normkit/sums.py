"""Between arrays, columns of a matrix of sums, and `Stats`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.ops import ops_of
from normkit.types import SUMS, Stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

NOTHING = Stats(count=0, sum=0.0, abs=0.0, sq=0.0, max=0.0, zeros=0, nonfinite=0)


def stats_of(x: Any) -> Stats:
    """The sums of one array, from one pass over its memory.

    Shapes: x [any]; NumPy and torch arrays of any dtype but complex, numbers and lists of numbers.
    Raises: ArgumentError for complex numbers and for what is no array.

    >>> stats_of([3.0, -4.0, 0.0])
    Stats(count=3, sum=-1.0, abs=7.0, sq=25.0, max=4.0, zeros=1, nonfinite=0, dot=nan)
    """
    x = as_array(x)
    matrix = ops_of(x).matrix_of_sums([x])
    (stats,) = from_matrix(matrix, [int(np.prod(x.shape, dtype=np.int64))])
    return stats or NOTHING


def as_array(x: Any) -> Any:
    """Numbers and (nested) lists of numbers as a NumPy array; anything else as it is."""
    if isinstance(x, bool | int | float | complex):
        return np.asarray(x)
    if isinstance(x, list | tuple):
        return np.asarray(x, dtype=None if len(x) else np.float64)
    return x


def merge(parts: Iterable[Stats]) -> Stats:
    """The Stats of all parts together, as of one array made of them.

    The sums add and `max` takes the maximum; `dot` is NaN unless every part has one.

    >>> merge([stats_of([3.0]), stats_of([-4.0, 0.0])])
    Stats(count=3, sum=-1.0, abs=7.0, sq=25.0, max=4.0, zeros=1, nonfinite=0, dot=nan)
    >>> merge([stats_of([3.0]), stats_of([-4.0, 0.0])])
    Stats(count=3, sum=-1.0, abs=7.0, sq=25.0, max=4.0, zeros=1, nonfinite=0, dot=nan)
    """
    merged: Stats | None = None
    for part in parts:
        merged = part if merged is None else merged + part
    return NOTHING if merged is None else merged


def from_matrix(matrix: Matrix, counts: Sequence[int] | NDArray[np.int64]) -> list[Stats | None]:
    """Columns of sums [6 or 7][N] as Stats; None for a column of NaN, where there was no tensor."""
    return [_stats(matrix[:, i], int(counts[i])) for i in range(len(counts))]


def to_matrix(stats: Sequence[Stats | None]) -> Matrix:
    """Stats as columns of sums [7][N]; a column of NaN for None."""
    nothing = [np.nan] * len(SUMS)
    columns = [nothing if s is None else [getattr(s, name) for name in SUMS] for s in stats]
    return np.array(columns, dtype=np.float64).reshape(len(columns), len(SUMS)).T


def _stats(column: NDArray[np.float64], count: int) -> Stats | None:
    values = dict(zip(SUMS, column.tolist(), strict=False))
    if np.isnan(values["zeros"]):
        return None
    zeros, nonfinite = int(values.pop("zeros")), int(values.pop("nonfinite"))
    return Stats(count=count, zeros=zeros, nonfinite=nonfinite, **values)
