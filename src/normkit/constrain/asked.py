"""Which limit a constraint was asked for, and a weight within it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from normkit.asked import one_of
from normkit.constrain.limits import checked_length, checked_limits, hold, max_norm, min_max_norm, unit_norm
from normkit.constrain.spectral import spectral_cap
from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per

LIMITS: dict[str, Callable[[Any, Any, Any], Any]] = {  # name -> (w, value, per) -> w
    "max_norm": max_norm,
    "unit_norm": lambda w, _, per: unit_norm(w, per),
    "min_max_norm": min_max_norm,
    "hold": hold,
    "spectral_cap": spectral_cap,
}


def one_limit(given: Mapping[str, Any]) -> tuple[str, Any]:
    """The name of the one limit given, and its value: a length, two, "initial" for "hold", or True for "unit_norm".

    Raises: ArgumentError for none, for several, and for a value that is no limit.

    >>> one_limit({"max_norm": 3, "unit_norm": False, "hold": None})
    ('max_norm', 3.0)
    """
    name, value = one_of(given, "constrain")
    if name == "unit_norm":
        if value is not True:
            raise ArgumentError(f"unit_norm={in_brief(value)}: expected True; for another length take hold=")
        return name, True
    if name == "min_max_norm":
        return name, checked_limits(value)
    if name == "hold" and isinstance(value, str):
        if value != "initial":
            raise ArgumentError(f"hold={value!r}: expected a length, a finite number above 0, or 'initial'")
        return name, value
    return name, checked_length(value, name)


def within(name: str, w: Any, value: Any, per: Per) -> Any:
    """The weight within the limit of that name.

    >>> import numpy as np
    >>> within("hold", np.array([[3.0, 4.0]]), 10.0, 0)
    array([[6., 8.]])
    """
    return LIMITS[name](w, value, per)


def said(name: str, value: Any) -> str:
    """A limit in a table or a message.

    >>> said("max_norm", 3.0), said("min_max_norm", (0.5, 2.0)), said("unit_norm", True), said("hold", "initial")
    ('max_norm 3', 'min_max_norm 0.5 to 2', 'unit_norm', 'hold initial')
    """
    if name == "unit_norm":
        return name
    if name == "min_max_norm":
        return f"{name} {value[0]:g} to {value[1]:g}"
    return f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"
