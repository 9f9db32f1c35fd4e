"""Limits on the length of each group of a weight's entries. What satisfies one comes back bit by bit.

Lengths are taken in float64 (float32 where the library or the device has none), so whether a group is within its limit
does not depend on how a framework adds up. A group that is scaled ends within its limit after it is rounded: it is
scaled to the limit times 1 -+ m, m being the distance from 1 to the next number in w's dtype, or four times that of the
lengths where it is more. So a second application changes no bit.

A group of zeros has no direction and stays zero; one with an entry that is not finite stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from types import ModuleType
from typing import Any

from normkit.asked import known
from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per
from normkit.lengths import epsilon, math_for, measured, other_axes, refuse_lengths, tiniest


def max_norm(w: Any, limit: float, per: Per = 0) -> Any:
    """Shrink every group of `w` longer than `limit`; leave the others alone.

        w_g <- w_g min(1, limit / |w_g|_2)          one group g for each index of the axes in `per`

    Shapes: w [any] -> [same], same dtype.
    Units:  `limit` is a length in weight space (l2), not an RMS.
    Keeps:  |w_g| <= limit comes back bit by bit; 0 stays 0, NaN and infinities stay.
    Raises: ArgumentError unless limit is a finite number above 0, and for an axis that w does not have.
    Source: Srivastava et al. 2014 (max-norm regularization).

    >>> import numpy as np
    >>> max_norm(np.array([[3.0, 4.0], [0.3, 0.4]]), 1.0).round(12)
    array([[0.6, 0.8],
           [0.3, 0.4]])
    """
    limit = checked_length(limit, "max_norm")
    found = _measured(w, per)
    return found.scaled(found.below(limit), found.length > limit)


def unit_norm(w: Any, per: Per = 0) -> Any:
    """Every group with length 1, as near as its dtype allows.

        w_g <- w_g / |w_g|_2

    Shapes: w [any] -> [same], same dtype.
    Keeps:  a group whose length is 1 within rounding comes back bit by bit; 0 stays 0.
    Raises: ArgumentError for an axis that w does not have.

    >>> import numpy as np
    >>> unit_norm(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    return hold(w, 1.0, per)


def min_max_norm(w: Any, limits: tuple[float, float], per: Per = 0) -> Any:
    """Every group with a length between two limits.

        w_g <- w_g clip(|w_g|_2, lo, hi) / |w_g|_2

    Shapes: w [any] -> [same], same dtype.
    Units:  the limits are lengths in weight space (l2).
    Keeps:  lo <= |w_g| <= hi comes back bit by bit; 0 stays 0: it has no direction to grow in.
    Raises: ArgumentError unless limits are two numbers, 0 <= lo <= hi, hi above 0 and finite.

    >>> import numpy as np
    >>> min_max_norm(np.array([[3.0, 4.0], [0.3, 0.4]]), (1.0, 2.0)).round(12)
    array([[1.2, 1.6],
           [0.6, 0.8]])
    """
    lo, hi = checked_limits(limits)
    found = _measured(w, per)
    if hi - lo <= 4 * (found.margin * hi + found.least):  # narrower than rounding can aim at
        return hold(w, (lo + hi) / 2, per)
    beyond = (found.length < lo) | (found.length > hi)
    short = found.xp.where(found.length < lo, found.xp.ones(found.length), found.xp.ones(found.length) * 0)
    above = lo * (1 + found.margin) + found.least
    return found.scaled(short * above + (1 - short) * found.below(hi), beyond)


def hold(w: Any, target: Any, per: Per = 0) -> Any:
    """Every group with the length `target`, such as the one it began with.

        w_g <- w_g target / |w_g|_2

    Shapes: w [any], target a number or [size of each axis in `per`, 1 for the others] -> [as w], same dtype.
    Units:  `target` is a length in weight space (l2).
    Keeps:  a group that has the length within rounding comes back bit by bit; 0 stays 0.
    Raises: ArgumentError for a number that is not finite and above 0, for lengths of another shape, and for an axis
        that w does not have.
    Source: Hyperball, arXiv:2606.16899 (weights held at the length of their initialization).

    >>> import numpy as np
    >>> hold(np.array([[3.0, 4.0]]), 10.0)
    array([[6., 8.]])
    """
    target = checked_length(target, "hold") if isinstance(target, Real) else target
    found = _measured(w, per)
    if not isinstance(target, float):
        refuse_lengths(target, found.length, "target")
        target = found.xp.widest(target)
    return found.scaled(target, found.xp.absolute(found.length - target) > found.margin * target + found.least)


def checked_length(length: Any, name: str) -> float:
    """Raises: ArgumentError unless it is a finite number above 0."""
    found = known(length)
    if found is None or not 0 < found < math.inf:
        raise ArgumentError(f"{name}={in_brief(length)}: expected a length, a finite number above 0")
    return found


def checked_limits(limits: Any) -> tuple[float, float]:
    """Raises: ArgumentError unless these are two numbers, 0 <= lo <= hi, and hi is finite and above 0."""
    given = tuple(limits) if isinstance(limits, tuple | list) else ()
    numbers = [found for found in map(known, given) if found is not None]
    if len(given) == len(numbers) == 2 and 0 <= numbers[0] <= numbers[1] and 0 < numbers[1] < math.inf:
        return numbers[0], numbers[1]
    raise ArgumentError(
        f"min_max_norm={in_brief(limits)}: expected two lengths (lo, hi) with 0 <= lo <= hi, as in (0.5, 2.0)"
    )


@dataclass(frozen=True)
class _Measured:
    """A weight, the same as wide as can be, the length of each group, and how many entries share one."""

    xp: ModuleType
    w: Any
    wide: Any
    length: Any
    count: int

    @property
    def margin(self) -> float:
        """By how much less than its limit a group is made, as a share, so that rounding leaves it within."""
        return max(epsilon(self.w), 4 * epsilon(self.wide))

    @property
    def least(self) -> float:
        """The same as a length: what rounding does to entries too near 0 for their dtype to round by a share."""
        return tiniest(self.w) * math.sqrt(self.count)

    def below(self, limit: float) -> float:
        return max(0.0, limit * (1 - self.margin) - self.least)

    def scaled(self, target: Any, beyond: Any) -> Any:
        """w with the groups that are `beyond` scaled to the target; zero and non-finite ones stay."""
        changed = beyond & (self.length > 0) & (self.length < math.inf)
        ones = self.xp.ones(self.length)
        factor = self.xp.where(changed, target / self.xp.where(changed, self.length, ones), ones)
        return self.xp.where(changed, self.xp.as_type_of(self.wide * factor, self.w), self.w)


def _measured(w: Any, per: Per) -> _Measured:
    xp = math_for(w)
    wide, others = xp.widest(w), other_axes(per, w.shape)
    _, scale, length, zero = measured(xp, wide, others, 2)
    count = math.prod([int(w.shape[axis]) for axis in others])
    return _Measured(xp, w, wide, xp.where(zero, xp.ones(length) * 0, scale * length), count)
