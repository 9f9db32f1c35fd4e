"""Which limit a constraint was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normkit.asked import one_of
from normkit.constrain.limits import checked_length, checked_limits
from normkit.errors import ArgumentError, in_brief


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
