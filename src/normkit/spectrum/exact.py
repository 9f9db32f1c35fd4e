"""Norms of the matrix that a layer applies: exact, by the singular values in float64."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from normkit.errors import ArgumentError
from normkit.ops import ops_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def spectral(w: Any) -> float:
    """Largest singular value: how much the layer can stretch a vector.

        max |w x|_2 / |x|_2  =  s_1

    Shapes: w [out][in] -> number. NaN where an entry is not finite, 0 for an empty matrix.
    Raises: ArgumentError unless w is a matrix.

    >>> spectral([[3.0, 0.0], [0.0, 4.0]])
    4.0
    """
    return float(singular_values(w).max(initial=0.0))


def nuclear(w: Any) -> float:
    """Sum of the singular values.

        s_1 + s_2 + ...

    Shapes: w [out][in] -> number. NaN where an entry is not finite, 0 for an empty matrix.
    Raises: ArgumentError unless w is a matrix.

    >>> nuclear([[3.0, 0.0], [0.0, 4.0]])
    7.0
    """
    return float(singular_values(w).sum())


def stable_rank(w: Any) -> float:
    """Squared length over squared largest singular value: between 1 and the rank; 0 where all entries are 0.

        |w|_F^2 / s_1^2

    Shapes: w [out][in] -> number. NaN where an entry is not finite.
    Raises: ArgumentError unless w is a matrix.

    >>> stable_rank([[3.0, 0.0], [0.0, 4.0]])
    1.5625
    """
    sigma = singular_values(w)
    largest = sigma.max(initial=0.0)
    return float(np.sum((sigma / largest) ** 2)) if largest != 0.0 else 0.0


OPERATOR_NORMS = {"spectral": spectral, "stable_rank": stable_rank, "nuclear": nuclear}


def singular_values(w: Any) -> NDArray[np.float64]:
    """Singular values in falling order; one NaN where an entry of w is not finite."""
    values = _matrix_of_numbers(w)
    if not np.isfinite(values).all():
        return np.array([np.nan])
    if not values.size:
        return np.zeros(0)
    return cast("NDArray[np.float64]", np.linalg.svd(values, compute_uv=False))


def matrix(w: Any, out_axes: Sequence[int], in_axes: Sequence[int]) -> NDArray[np.float64]:
    """The matrix [out][in] that a weight of any shape stands for, given which of its axes are outputs and inputs.

    Axes in neither (a filter's height and width) count as inputs.

    >>> matrix(np.zeros((64, 3, 5, 5)), out_axes=(0,), in_axes=(1,)).shape
    (64, 75)
    """
    values = ops_of(w).as_float64(w)
    others = tuple(axis for axis in range(values.ndim) if axis not in (*out_axes, *in_axes))
    count = prod(values.shape[axis] for axis in out_axes)
    ordered = np.transpose(values, (*out_axes, *in_axes, *others))
    return ordered.reshape(count, values.size // count if count else 0)


def _matrix_of_numbers(w: Any) -> NDArray[np.float64]:
    w = np.asarray(w) if isinstance(w, list | tuple | int | float) else w
    values: NDArray[np.float64] = ops_of(w).as_float64(w)
    if values.ndim != 2:
        raise ArgumentError(
            f"an array of shape {values.shape} was given where a matrix was expected; reshape it to [out][in], "
            "or use normkit.norms on the model, which knows the axes"
        )
    return values
