"""What a verb is asked for, checked before anything is changed: numbers, and one of several things."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from normkit.errors import ArgumentError, in_brief


def number(value: Any, name: str, *, least: float = 0.0, above: float | None = None, advice: str = "") -> float:
    """`value` as Python's number.

    Raises: ArgumentError unless it is a finite number of at least `least`, or above `above` where that is given.

    >>> number(1, "weight_decay")
    1.0
    """
    found = known(value)
    if found is None or not (least <= found if above is None else above < found) or not math.isfinite(found):
        bound = f"of at least {least:g}" if above is None else f"above {above:g}"
        without = " without a gradient" if getattr(value, "requires_grad", False) else ""
        raise ArgumentError(f"{name}={_shown(value)}: expected a finite number {bound}{without}{advice}")
    return found


def is_single(value: Any) -> bool:
    """Is it an array of no axes, of real numbers?"""
    return getattr(value, "shape", None) == () and any(kind in str(value.dtype) for kind in ("float", "int"))


def known(value: Any) -> float | None:
    """A number of any library as Python's; None for what is no number, has a gradient, or is traced by a compiler."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if not is_single(value) or getattr(value, "requires_grad", False):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):  # it has no value yet
        return None


def one_of(given: Mapping[str, Any], verb: str) -> tuple[str, Any]:
    """The one that was given, neither None nor False.

    Raises: ArgumentError for none and for several.

    >>> one_of({"max_norm": 3.0, "unit_norm": False}, "constrain")
    ('max_norm', 3.0)
    """
    found = {name: value for name, value in given.items() if value is not None and value is not False}
    if len(found) != 1:
        said = ", ".join(f"{name}={in_brief(value)}" for name, value in found.items())
        said = f"{said}; call it again for another one" if said else "none of them"
        raise ArgumentError(f"{verb} takes one of {', '.join(given)} in a call, and was given {said}")
    return next(iter(found.items()))


def _shown(value: Any) -> str:
    unknown = is_single(value) and known(value) is None and not getattr(value, "requires_grad", False)
    return f"<{value.dtype} without a value yet>" if unknown else in_brief(value)
