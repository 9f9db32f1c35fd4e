"""How much a layer can stretch a vector, by power iteration: cheap, warm-started, differentiable; a lower bound.

    sigma = |W'u|          u after `iterations` of  u <- W W'u / |W W'u|

W is the matrix of the layer: a row for each index of the axes that `per` keeps, the others in one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from operator import index
from types import ModuleType
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, kept_axes
from normkit.lengths import math_for, measured, norm_except_dim, other_axes, refuse_shape, shape_of


@dataclass(frozen=True)
class Stretched:
    """What an iteration found: `sigma = share * scale`, `scaled = w / scale`, with a power of two; and the next `u`."""

    xp: ModuleType
    scaled: Any
    scale: Any
    share: Any
    u: Any

    @property
    def sigma(self) -> Any:
        """The estimate, one number."""
        return self.share * self.xp.reshaped(self.scale, ())


def stretched(w: Any, u: Any, per: Per = 0, *, iterations: int = 1) -> Stretched:
    """The estimate of the spectral norm and what it was found with; `normalize.spectral_normalized` has the bounds.

    Derivatives take u and v = W'u / |W'u| as constants: those of sigma are u v'; where w is zero they are 0.

    Shapes: w [any], u [size of each axis in `per`, 1 for the others]; sigma is one number.
    Raises: ArgumentError for a u of another shape, an axis that w does not have, iterations below 0.
    """
    xp, count = math_for(w), _checked(iterations)
    others = other_axes(per, w.shape)
    refuse_shape(shape_of(u, "u"), w.shape, others, name="u", beside="w")
    wide = xp.widened(w)
    tops = xp.constant(xp.largest(wide, others))
    scale = xp.power_of_two(xp.largest(tops, tuple(range(len(w.shape)))))
    scaled = wide / scale
    matrix = as_matrix(xp, scaled, others)
    column = (int(matrix.shape[0]), 1)
    tops, given = xp.reshaped(tops / scale, column), xp.reshaped(xp.constant(xp.as_type_of(u, wide)), column)
    turned, used = _directions(xp, xp.constant(matrix), given, tops, count)
    back = xp.matrix_product(xp.transposed(matrix, (1, 0)), used)
    share = xp.reshaped(xp.total(back * _unit(xp, xp.constant(back)), (0, 1)), ())
    shape = tuple(int(size) for size in u.shape)
    return Stretched(xp, scaled, scale, share, xp.reshaped(turned, shape))


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


def as_matrix(xp: ModuleType, w: Any, others: tuple[int, ...]) -> Any:
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
    scaled, _, length, _ = measured(xp, x, (0, 1), 2)
    return scaled / length


def _checked(iterations: object) -> int:
    try:
        count = -1 if isinstance(iterations, bool) else index(iterations)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < 0:
        raise ArgumentError(f"iterations={in_brief(iterations)}: expected a whole number of at least 0")
    return count
