"""Which terms a penalty has, and how much of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from normkit.asked import number
from normkit.errors import ArgumentError

TERMS = ("l1", "l2", "group", "toward", "orthogonality", "spectral")


def coefficients(given: Mapping[str, Any], verb: str = "penalty", *, advice: str = "") -> dict[str, float]:
    """The coefficients above 0, as Python's numbers; None is 0.

    Raises: ArgumentError for one that is no finite number of at least 0, and where none is above 0.

    >>> coefficients({"l1": None, "l2": 1})
    {'l2': 1.0}
    """
    found = {name: 0.0 if value is None else number(value, name, advice=advice) for name, value in given.items()}
    if not any(found.values()):
        raise ArgumentError(f"{verb}: no coefficient above 0 among {', '.join(given)}; give one, as in l1=1e-4")
    return {name: value for name, value in found.items() if value}
