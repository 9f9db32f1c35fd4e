"""Norms from the rows of sums that a recording keeps: which rows a norm needs, and what it is then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normkit.errors import ArgumentError
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

NEEDS = {  # norm -> the rows of sums that its formula needs
    "l1": ("abs",),
    "l2": ("sq",),
    "linf": ("max",),
    "rms": ("sq",),
    "mean": ("sum",),
    "std": ("sum", "sq"),
    "zeros": ("zeros",),
    "nonfinite": ("nonfinite",),
}


def kept(called: str) -> str:
    """The own name of the norm `called` so. Raises: ArgumentError for one that a recording does not keep."""
    from normkit.norms import canonical

    kind = canonical(called)
    if kind not in NEEDS:
        known = ", ".join(map(repr, NEEDS))
        raise ArgumentError(f"{kind!r} does not follow from the sums that a recording keeps; {known} do")
    return kind


def value(kind: str, rows: Matrix, counts: NDArray[np.float64]) -> Matrix:
    """The norm `kind` of `rows`, those that it needs, over `counts` entries each: [needs][...] -> [...]."""
    from normkit.norms import from_sums

    full = np.zeros((len(SUMS) - 1, *rows.shape[1:]))
    full[[SUMS.index(name) for name in NEEDS[kind]]] = rows
    return np.asarray(from_sums(full, counts, kind))
