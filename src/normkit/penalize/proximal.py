"""Proximal steps: what a penalty with a corner at 0 needs in the place of a gradient step, so that zeros are exact.

    prox(w) = argmin_x  1/2 |x - w|^2 + threshold * term(x)          threshold = lr * lambda, after a step of the loss

A gradient step on |w| jumps over 0 for ever; this one stops there.
"""

from __future__ import annotations

from math import prod
from typing import Any

from normkit.groups import Per
from normkit.lengths import math_for, measured, other_axes


def soft_threshold(w: Any, threshold: Any) -> Any:
    """The proximal step of l1: every entry moved toward 0 by `threshold`, and to 0 where it would cross it.

        w <- sign(w) max(|w| - threshold, 0)

    Shapes: w [any], threshold a number of at least 0 -> [as w], in w's dtype.
    Units:  the threshold is a length in weight space: lr * lambda for a step of rate lr.
    Keeps:  NaN stays NaN; with threshold 0, w comes back.
    Raises: ArgumentError for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> soft_threshold(np.array([3.0, -0.5, 0.2]), 0.5)
    array([2.5, 0. , 0. ])
    """
    xp = math_for(w)
    wide = xp.widened(w)
    size = xp.absolute(wide)
    sign = xp.where(wide > 0, xp.ones(wide), -xp.ones(wide))
    moved = sign * (size - threshold)
    return xp.as_type_of(xp.where(size <= threshold, xp.ones(wide) * 0, moved), w)


def group_threshold(w: Any, threshold: Any, per: Per = 0, *, entries: int = 1) -> Any:
    """The proximal step of the group lasso: every group made shorter, and 0 where it is short.

        w_g <- w_g max(0, 1 - threshold sqrt(n) / |w_g|_2)          n entries in each group

    Where w holds lengths, each of them that of `entries` numbers, as g does, n is the number of these.

    Shapes: w [any], a group per index of the axes in `per`, threshold a number of at least 0 -> [as w], in w's dtype.
    Units:  the threshold is a length in weight space: lr * lambda for a step of rate lr.
    Keeps:  0 stays 0, NaN stays NaN.
    Raises: ArgumentError for an axis that w does not have, and for what is no array of floating-point numbers.

    >>> import numpy as np
    >>> group_threshold(np.array([[3.0, 4.0], [0.3, 0.4]]), 5 / 8**0.5)
    array([[1.5, 2. ],
           [0. , 0. ]])
    """
    xp = math_for(w)
    others = other_axes(per, w.shape)
    wide = xp.widened(w)
    _, scale, length, zero = measured(xp, wide, others, 2)
    length = scale * length
    reach = threshold * prod([entries, *(int(w.shape[axis]) for axis in others)]) ** 0.5
    gone = zero | (length <= reach)
    left = 1 - reach / xp.where(gone, xp.ones(length), length)
    return xp.as_type_of(xp.where(gone, xp.ones(wide) * 0, wide * left), w)
