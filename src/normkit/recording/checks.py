"""What a recorder is given, checked."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from operator import index
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


UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
LEAST_BUDGET = 1 << 20


def check_budget(budget: Any) -> int | None:
    """A budget in bytes, from a number of them or a text such as "256 MB"; None is no limit.

    >>> check_budget("256 MB"), check_budget("1.5GB"), check_budget(10_000_000), check_budget(None)
    (268435456, 1610612736, 10000000, None)
    """
    if budget is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?b)?\s*", str(budget).lower())
    size = float(found[1]) * UNITS[found[2] or ""] if found else math.inf
    if isinstance(budget, bool) or size >= 1 << 63:
        raise ArgumentError(f"budget={in_brief(budget)}: expected a size such as '256 MB' or '1 GB', or None")
    if size < LEAST_BUDGET:
        raise ArgumentError(f"budget={in_brief(budget)}: a recording needs at least 1 MB")
    return int(size)


def check_table(csv: Any) -> None:
    """Where a live table goes. Raises: ArgumentError unless a file is named, or None."""
    if csv is None:
        return
    if not isinstance(csv, str | os.PathLike) or not isinstance(path := os.fspath(csv), str) or not path:
        raise ArgumentError(f"csv={in_brief(csv)}: expected the path of a file, such as 'weights.csv'")
    if "\0" in path:
        raise ArgumentError(f"csv={path!r}: a path holds no zero byte; give another one")
    if os.path.isdir(path) or path.endswith(("/", os.sep)):
        inside = os.path.join(path, "weights.csv")
        raise ArgumentError(f"csv={path!r} is a directory; give the name of a file, such as {inside!r}")


def check_step(step: Any, resume: Any) -> int | None:
    """The optimizer step at which a resumed run stands, as it was given."""
    if step is None:
        return None
    if not resume:
        raise ArgumentError(f"step={in_brief(step)} says where a resumed run stands; it needs resume=True or 'auto'")
    try:
        whole = -1 if isinstance(step, bool) else index(step)
    except TypeError:
        whole = -1
    if whole < 0:
        raise ArgumentError(f"step={in_brief(step)}: expected a whole number of at least 0")
    return whole
