"""A limit on how much the matrix of a layer can stretch a vector; what satisfies it comes back bit by bit.

The singular values are worked out only where a bound that is cheaper, and never below the largest, is above the limit.
Power iteration finds a number below the largest singular value, so it could not say that a limit is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from normkit.constrain.limits import checked_length
from normkit.groups import Per
from normkit.lengths import epsilon, math_for, other_axes, tiniest
from normkit.spectrum.power import as_matrix

USEFUL = 1 / 8  # rounding that makes the bound looser than this leaves it no better than the length of the matrix


def spectral_cap(w: Any, limit: float, per: Per = 0) -> Any:
    """The layer's matrix with every singular value above `limit` brought down to it, and all else of it kept.

        W <- W - U max(S - limit, 0) V'          W = U S V', a row for each index of the axes in `per`

    Worked out in float64 (float32 where the library or the device has none). Values are brought to the limit less what
    rounding to w's dtype can add, at most eps/2 |W|_F, so none ends above it and a second application changes no bit:
    for 512 x 512 at random 1e-6 of the limit in float32, 9 % in bfloat16.

    Shapes: w [any] -> [same], same dtype.
    Units:  `limit` is how much the matrix may stretch a vector, |W x| / |x|. A convolution as a whole can stretch more
        than the matrix of its kernel: by at most the square root of its positions, 3 for a kernel of 3 x 3.
    Keeps:  a matrix within the limit comes back bit by bit; 0 stays 0, one with an entry that is not finite stays.
    Raises: ArgumentError unless limit is a finite number above 0, and for an axis that w does not have.

    >>> import numpy as np
    >>> spectral_cap(np.array([[3.0, 0.0], [0.0, 0.5]]), 1.0).round(9)
    array([[1. , 0. ],
           [0. , 0.5]])
    """
    limit = checked_length(limit, "spectral_cap")
    found = _matrix(w, per)
    return found.xp.either(_bound(found) > limit, lambda x: _capped(_matrix(x, per), limit), w)


def spectral_bound(w: Any, per: Per = 0) -> Any:
    """A number that the largest singular value of the layer's matrix does not exceed, without singular values.

        |(W'W)^8|_F^(1/16) = (s_1^32 + s_2^32 + ...)^(1/32)          or |W|_F where that is less

    Above the largest by a factor of at most rank^(1/32), 6 % for a matrix of 512 x 512 at random, and by that of
    rounding, 1 + (k (k + n) + 16) eps for k x n, k <= n, that is included; where this is over 1/8 (float32, from about
    700 x 700), |W|_F alone. Four products of matrices: a half to a tenth of the time of an SVD.

    Shapes: w [any], a row of W per index of the axes in `per` -> one number, in float64 where there is one.
    Keeps:  0 gives 0; an entry that is not finite gives NaN.
    Raises: ArgumentError for an axis that w does not have, and for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> round(float(spectral_bound(np.array([[3.0, 0.0], [0.0, 4.0]]))), 4)
    4.0
    """
    return _bound(_matrix(w, per))


@dataclass(frozen=True)
class _Matrix:
    """A weight and its layer's matrix, as wide as can be, over a power of two."""

    xp: ModuleType
    w: Any
    scaled: Any
    scale: Any
    others: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int]:
        """The smaller and the larger."""
        few, many = sorted(int(size) for size in self.scaled.shape)
        return few, many


def _matrix(w: Any, per: Per) -> _Matrix:
    xp = math_for(w)
    others = other_axes(per, w.shape)
    matrix = as_matrix(xp, xp.widest(w), others)
    scale = xp.power_of_two(xp.largest(matrix, (0, 1)))
    return _Matrix(xp, w, matrix / scale, scale, others)


def _bound(found: _Matrix) -> Any:
    """The first product is off by k n eps / 2 of s_1^2 at most, each square by twice what it is of and k^2 eps / 2."""
    xp, (few, many), eps = found.xp, found.sizes, epsilon(found.scaled)
    usual = xp.total(xp.absolute(found.scaled), (0, 1)) < math.inf
    x = xp.where(usual, found.scaled, xp.ones(found.scaled) * 0)
    bound = _frobenius(xp, x) * (1 + (few + many + 16) * eps)
    loose = (few * (few + many) + 16) * eps
    if loose <= USEFUL:
        other = _by_squaring(xp, x) * (1 + loose)
        bound = xp.where(bound < other, bound, other)
    return xp.reshaped(xp.where(usual, bound * found.scale, xp.ones(bound) * math.nan), ())


def _by_squaring(xp: ModuleType, x: Any) -> Any:
    """Each square is divided by a power of two, whose root is multiplied back: no power leaves the range of numbers."""
    back = xp.transposed(x, (1, 0))
    power = xp.matrix_product(x, back) if int(x.shape[0]) <= int(x.shape[1]) else xp.matrix_product(back, x)
    root, factor = 1 / 2, xp.ones(xp.largest(power, (0, 1)))
    for squarings in range(4):
        if squarings:
            power, root = xp.matrix_product(power, power), root / 2
        top = xp.power_of_two(xp.largest(power, (0, 1)))
        power, factor = power / top, factor * xp.power(top, root)
    return factor * xp.power(_frobenius(xp, power), root)


def _frobenius(xp: ModuleType, x: Any) -> Any:
    """One axis after the other, so that rounding grows with k + n and not with their product."""
    return xp.sqrt(xp.total(xp.total(x * x, (1,)), (0,)))


def _capped(found: _Matrix, limit: float) -> Any:
    """U min(S, target) V': with the difference instead, a large S would leave its rounding in the result."""
    xp, w = found.xp, found.w
    u, sigma, v = xp.svd(found.scaled)
    sigma = xp.reshaped(sigma, (1, int(sigma.shape[0]))) * found.scale
    target = limit - _lost(found, _least(xp, sigma, limit), limit)
    target = xp.where(target > 0, target, xp.ones(target) * 0)
    matrix = xp.matrix_product(u * _least(xp, sigma, target), v)
    order = (*(axis for axis in range(len(w.shape)) if axis not in found.others), *found.others)
    whole = xp.reshaped(matrix, tuple(int(w.shape[axis]) for axis in order))
    result = xp.as_type_of(xp.transposed(whole, tuple(map(order.index, range(len(order))))), w)
    return xp.where(xp.reshaped(xp.largest(sigma, (0, 1)), ()) > limit, result, w)


def _least(xp: ModuleType, sigma: Any, limit: Any) -> Any:
    return xp.where(sigma > limit, xp.ones(sigma) * limit, sigma)


def _lost(found: _Matrix, sigma: Any, limit: float) -> Any:
    """By how much rounding can raise the largest singular value: in w's dtype, and of the products before."""
    few, many = found.sizes
    by_dtype = epsilon(found.w) / 2 * _frobenius(found.xp, sigma) + tiniest(found.w) * (few * many) ** 0.5
    return by_dtype + 2 * (few + 16) * epsilon(found.scaled) * limit
