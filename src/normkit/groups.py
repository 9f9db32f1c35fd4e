"""Which entries of an array share a norm: `per` says which axes are kept.

"tensor"        all entries share one
0, (0, 1), -1   one norm per index of the kept axis or axes; negative numbers count from the end
"out", "in"     the axes that a `Param` says are its layer's outputs or inputs
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import TYPE_CHECKING, SupportsIndex, cast

from normkit.errors import ArgumentError, in_brief

if TYPE_CHECKING:
    from normkit.types import Param

Per = str | int | Sequence[int]


def kept_axes(per: Per, shape: Sequence[int], param: Param | None = None) -> tuple[int, ...]:
    """The kept axes as numbers from 0, in the order given; () for "tensor".

    Raises: ArgumentError for an axis that the shape does not have or that is named twice, for "out" and "in" where no
        `param` says which axes these are, and for any other word.

    >>> kept_axes("tensor", (64, 3, 3, 3)), kept_axes(0, (64, 3, 3, 3)), kept_axes((-1, 0), (64, 3, 3, 3))
    ((), (0,), (3, 0))
    """
    if isinstance(per, str):
        return _named(per, shape, param)
    axes = _numbers(per)
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ArgumentError(f"per is {per!r}, and an array of shape {tuple(shape)} has no axis {axis}")
    kept = tuple(axis % len(shape) for axis in axes)
    if len(set(kept)) < len(kept):
        raise ArgumentError(f"per is {per!r}, which names an axis of shape {tuple(shape)} twice; name each once")
    return kept


def check_per(per: object) -> None:
    """Raises: ArgumentError for what is no such word or axis, of whatever array."""
    if not isinstance(per, str):
        _numbers(per)
    elif per not in ("tensor", "out", "in"):
        raise ArgumentError(f"per is {per!r}; it must be 'tensor', 'out', 'in', or the number(s) of the axes kept")


def _numbers(per: object) -> list[int]:
    given = per if isinstance(per, Sequence) else (per,)
    try:
        if not any(isinstance(axis, bool) for axis in given):
            return [index(cast(SupportsIndex, axis)) for axis in given]
    except TypeError:  # no whole number, whatever its library
        pass
    raise ArgumentError(f"per is {in_brief(per)}; it must be 'tensor', 'out', 'in', or the number(s) of the axes kept")


def _named(per: str, shape: Sequence[int], param: Param | None) -> tuple[int, ...]:
    check_per(per)
    if per == "tensor":
        return ()
    if param is None:
        raise ArgumentError(
            f"per is {per!r}, but an array of shape {tuple(shape)} does not say which these are: give axis numbers"
        )
    axes = param.out_axes if per == "out" else param.in_axes
    if axes is None:
        layer = param.layer or "its layer"
        raise ArgumentError(
            f"per is {per!r}, but {layer} does not say which axes of {param.name} of shape {tuple(shape)} these are: "
            "give the numbers of the axes kept"
        )
    return axes
