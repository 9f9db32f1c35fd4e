"""A coefficient, as a user gives it."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from torch import Tensor

from normkit.errors import ArgumentError, in_brief


def checked_coefficient(value: Any, name: str) -> float:
    """Raises: ArgumentError unless it is None, or a finite number of at least 0."""
    if value is None:
        return 0.0
    if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        advice = " without a gradient" if isinstance(value, Tensor) and value.requires_grad else ""
        raise ArgumentError(f"{name}={in_brief(value)}: expected a coefficient{advice}, a finite number of at least 0")
    return float(value)
