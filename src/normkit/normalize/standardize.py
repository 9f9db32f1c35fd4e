"""Weight standardization: each group of a weight with mean 0 and variance 1.

    (w - mean) / std          over everything that `per` does not keep; population variance

The mean is taken out of w / s, s the power of two at the largest entry, and what rounding leaves of it is taken out
once more, so that no digits cancel and 1e-23 and 1e25 are neither zero nor infinite in float32. float16 and bfloat16
are worked out in float32.
"""

from __future__ import annotations

import math
from math import prod
from numbers import Real
from types import ModuleType
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per
from normkit.lengths import math_for, other_axes, refuse_shape


def standardized(w: Any, per: Per = 0, *, gain: Any = None, eps: float = 0.0) -> Any:
    """The weight with mean 0 and variance 1 in each group.

        (w - mean) / sqrt(var + eps)                   var = mean of (w - mean)^2, without Bessel's correction
        gain (w - mean) / sqrt((var + eps) N)          with `gain`, N entries per group: each group's length is its gain

    Where all entries of a group are equal (or there is one only), the result is 0; there, without `eps`, the standard
    deviation counts as 1: dL/dw is dL/dw^ less its mean (times gain / sqrt(N)), dL/dgain is 0, and of the second
    derivatives only those by w and gain are not zero. So everything is finite, to any order.

    Shapes: w [any] -> [as w], in w's dtype; gain a number, or [size of each axis in `per`, 1 for the others].
    Units:  eps is a variance, in squares of the units of w; the gain is a length, that of sqrt(sum w^2).
    Keeps:  NaN stays in its group.
    Raises: ArgumentError for a gain of another shape, an axis that w does not have, eps below 0.
    Source: Qiao et al. 2019, arXiv:1903.10520; with gain Brock et al. 2021, arXiv:2101.08692.

    >>> import numpy as np
    >>> standardized(np.array([[1.0, 3.0], [0.1, 0.1]]))
    array([[-1.,  1.],
           [ 0.,  0.]])
    """
    xp, root = math_for(w), math.sqrt(_checked(eps))
    axes = other_axes(per, w.shape)
    if not (gain is None or isinstance(gain, Real)):
        if not hasattr(gain, "shape"):
            raise ArgumentError(f"gain is {in_brief(gain)}; expected a number, or an array with the shape of g")
        refuse_shape(gain.shape, w.shape, axes, name="gain", beside="w")
    count = max(prod([int(w.shape[axis]) for axis in axes]), 1)
    centred, squares = _centred(xp, xp.widened(w), axes, count, root)
    found = centred / xp.sqrt(squares)
    return xp.as_type_of(found if gain is None else found * _factor(xp, gain, found, count), w)


def _centred(xp: ModuleType, w: Any, axes: tuple[int, ...], count: int, root: float) -> tuple[Any, Any]:
    """(w - mean) / s and the variance of that, with `root`^2 added; 1 where both are zero, and there s is 1."""
    top, fixed = xp.constant(xp.largest(w, axes)), xp.constant(w)
    equal, least = _all_equal(xp, fixed, top, axes), xp.ones(top) * root
    scale = xp.power_of_two(xp.where(equal | (top < least), least, top))
    x = xp.where(equal, w - fixed, w) / scale  # exactly 0 where all are equal, which a mean of rounded sums is not
    x = x - xp.total(x, axes) / count
    x = x - xp.total(x, axes) / count
    squares = xp.total(x * x, axes) / count + (least / scale) ** 2
    return x, squares if root else xp.where(equal, xp.ones(squares), squares)


def _all_equal(xp: ModuleType, w: Any, top: Any, axes: tuple[int, ...]) -> Any:
    """Which groups have one value in all their entries."""
    ones = xp.ones(w)
    above, below = (xp.largest(xp.where(w == value, ones * 0, ones), axes) for value in (top, -top))
    return (above == 0) | (below == 0)


def _factor(xp: ModuleType, gain: Any, like: Any, count: int) -> Any:
    return (float(gain) if isinstance(gain, Real) else xp.as_type_of(gain, like)) / math.sqrt(count)


def _checked(eps: object) -> float:
    if isinstance(eps, bool) or not isinstance(eps, Real) or not 0 <= float(eps) < math.inf:
        raise ArgumentError(f"eps={in_brief(eps)}: expected a variance of at least 0, such as 1e-5")
    return float(eps)
