"""Spectral normalization: a weight divided by how much its layer can stretch a vector.

    w / sigma          sigma = |W'u|, u after `iterations` of  u <- W W'u / |W W'u|

W is the matrix of the layer: a row for each index of the axes that `per` keeps, the others in one. u goes from step to
step, so that one iteration a step suffices for a weight that changes slowly.
"""

from __future__ import annotations

from math import prod
from operator import index
from types import ModuleType
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, kept_axes
from normkit.normalize.weight import math_for, norm_except_dim, normalized, other_axes, refuse_shape, shape_of


def spectral_normalized(w: Any, u: Any, per: Per = 0, *, iterations: int = 1) -> tuple[Any, Any, Any]:
    """The weight over its estimated spectral norm, the estimate, and the `u` to give the next time.

        u <- W W'u / |W W'u|  (`iterations` times)        v = W'u / |W'u|        sigma = u'W v = |W'u|

    Where |W'u| is below the largest |entry|, the row of that entry stands in for u, so no entry comes back above 1.
    Derivatives take u and v as constants, as Miyato et al. do: those of w / sigma for d sigma/dW = u v', second ones
    included, without those of u and v. Where w is zero, sigma is 0, w / sigma is 0, and its derivative that of w / 1.
    0 iterations leave u as it is, for evaluation.

    sigma is a lower bound, but for the rounding of sums. With s_1 >= s_2 >= ... the singular values of W [n][m]:

        max |w| <= sigma <= s_1              always
        s_1 <= sigma c^(-1 / (2 k + 1))      after k iterations, c = |cos| between the first u and W's first left vector
        |s_i - sigma| <= r / sqrt(2)         for some i, where r = |W v - sigma u|

    None depends on the gap s_1 - s_2, and none certifies s_1: for a start orthogonal to that vector c is 0, and s_i
    need not be s_1. Of starts drawn uniformly from the sphere, n >= 2, at most a share p has c < p sqrt(pi / (2 n)),
    and so fails the second line with that put in for c. On the average over such starts 1 - sigma^2 / s_1^2 is at most
    0.871 ln(n) / k; no number of iterations bounds it for a fixed start, which `spectral_start` is.

    Shapes: w [any], u [size of each axis in `per`, 1 for the others] -> [as w], [], [as u]; the first in w's dtype, the
            others in float32 where that is half precision. The length of u does not matter.
    Keeps:  a u that is zero, NaN or reaches nothing is begun anew. NaN in w makes w and sigma NaN, and leaves u.
    Raises: ArgumentError for a u of another shape, an axis that w does not have, iterations below 0.
    Source: Miyato et al. 2018, arXiv:1802.05957; Kuczynski & Wozniakowski 1992, SIAM J. Matrix Anal. Appl. 13.

    >>> import numpy as np
    >>> w = np.array([[3.0, 0.0], [0.0, 4.0]])
    >>> normalized, sigma, u = spectral_normalized(w, spectral_start(w), iterations=50)
    >>> float(round(sigma, 6)), np.round(normalized, 6)
    (4.0, array([[0.75, 0.  ],
           [0.  , 1.  ]]))
    """
    xp, count = math_for(w), _checked(iterations)
    others = other_axes(per, w.shape)
    refuse_shape(shape_of(u, "u"), w.shape, others, name="u", beside="w")
    wide = xp.widened(w)
    tops = xp.constant(xp.largest(wide, others))
    scale = xp.power_of_two(xp.largest(tops, tuple(range(len(w.shape)))))
    scaled = wide / scale
    matrix = _matrix(xp, scaled, others)
    column = (int(matrix.shape[0]), 1)
    tops, given = xp.reshaped(tops / scale, column), xp.reshaped(xp.constant(xp.as_type_of(u, wide)), column)
    turned, used = _directions(xp, xp.constant(matrix), given, tops, count)
    back = xp.matrix_product(xp.transposed(matrix, (1, 0)), used)
    sigma = xp.reshaped(xp.total(back * _unit(xp, xp.constant(back)), (0, 1)), ())
    divisor = xp.where(sigma == 0, xp.ones(sigma), sigma)
    shape = tuple(int(size) for size in u.shape)
    return xp.as_type_of(scaled / divisor, w), sigma * xp.reshaped(scale, ()), xp.reshaped(turned, shape)


def spectral_start(w: Any, per: Per = 0) -> Any:
    """A `u` to begin with: the same for each weight of this shape, without any randomness.

        u_i = (37 i mod 101) / 101          i = 1, 2, ..., in float32 for half precision

    Shapes: w [any] -> [size of each axis in `per`, 1 for the others].
    Raises: ArgumentError for an axis that w does not have.

    >>> import numpy as np
    >>> spectral_start(np.zeros((3, 2))).round(3)
    array([[0.366],
           [0.733],
           [0.099]])
    """
    xp, kept = math_for(w), kept_axes(per, w.shape)
    like = xp.constant(xp.ones(xp.largest(xp.widened(w), other_axes(per, w.shape))))
    column = xp.reshaped(like, (prod([int(w.shape[axis]) for axis in kept]), 1))
    return xp.reshaped((37 * (xp.places(column) + 1)) % 101 / 101, tuple(int(size) for size in like.shape))


def _matrix(xp: ModuleType, w: Any, others: tuple[int, ...]) -> Any:
    """A row for each index of the kept axes, in the order in which u has them."""
    kept = tuple(axis for axis in range(len(w.shape)) if axis not in others)
    rows, columns = [prod([int(w.shape[axis]) for axis in axes]) for axes in (kept, others)]
    return xp.reshaped(xp.transposed(w, (*kept, *others)), (rows, columns))


def _directions(xp: ModuleType, matrix: Any, u: Any, tops: Any, count: int) -> tuple[Any, Any]:
    """u after the iterations, and the one to measure with; `tops` holds the largest entry of each row."""
    back = xp.transposed(matrix, (1, 0))
    top = xp.largest(tops, (0, 1))
    spare, idle = _row_of_largest(xp, tops, top), ~(top > 0)  # no matrix to speak of: u stays
    u = _unit(xp, u)
    u = xp.where((_reach(xp, back, u) > 0) | idle, u, spare)
    for _ in range(count):
        u = xp.where(idle, u, _unit(xp, xp.matrix_product(matrix, _unit(xp, xp.matrix_product(back, u)))))
    return u, xp.where((_reach(xp, back, u) >= top) | idle, u, spare)


def _row_of_largest(xp: ModuleType, tops: Any, top: Any) -> Any:
    """1 at the row with the largest entry (the last of several), 0 elsewhere."""
    ones = xp.ones(tops)
    place = xp.where(tops == top, xp.places(tops) + 1, ones * 0)
    return xp.where(place == xp.largest(place, (0, 1)), ones, ones * 0)


def _reach(xp: ModuleType, back: Any, u: Any) -> Any:
    return norm_except_dim(xp.matrix_product(back, u), "tensor")


def _unit(xp: ModuleType, x: Any) -> Any:
    """x with length 1, 0 for 0."""
    return normalized(x, xp.ones(xp.largest(x, (0, 1))), "tensor")


def _checked(iterations: object) -> int:
    try:
        count = -1 if isinstance(iterations, bool) else index(iterations)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < 0:
        raise ArgumentError(f"iterations={in_brief(iterations)}: expected a whole number of at least 0")
    return count
