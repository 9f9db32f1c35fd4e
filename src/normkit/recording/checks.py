"""What a recorder is given, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.types import QUANTITIES


def plain_scalar(name: str, value: Any) -> float:
    """`value` as a float. Raises: ArgumentError naming it when it is not one number."""
    try:
        return float(value.item() if getattr(value, "size", None) == 1 else value)
    except (TypeError, ValueError, OverflowError):
        shape = getattr(value, "shape", None)
        given = f"shape {tuple(shape)}" if shape is not None else repr(type(value).__name__)
        raise ArgumentError(f"log({name}=...): expected one number, got {given}") from None


def check_what(what: Sequence[str]) -> tuple[str, ...]:
    """The quantities named, in the house's order; the weight is always among them."""
    asked = (what,) if isinstance(what, str) or not isinstance(what, Iterable) else tuple(what)
    for name in asked:
        if name not in QUANTITIES:
            raise ArgumentError(f"what={in_brief(name)}: expected some of {', '.join(QUANTITIES)}")
    return tuple(name for name in QUANTITIES if name in asked or name == "weight")
