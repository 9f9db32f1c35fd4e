"""Rows of the table: one tensor, or its numbered siblings together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from normkit.diagnose import Columns
from normkit.report.digits import changes
from normkit.report.trend import slices
from normkit.types import Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS_ABOVE = 20  # tensors
MOST = 25  # rows


@dataclass(frozen=True, eq=False)
class Row:
    """Tensors shown together: their columns, and norms of all of them as of one long vector.

    `lengths` is the l2 norm at each record, `there` says where it exists, `shares` holds each tensor's own relative
    change, `change` that of the whole, `step` the median of |update| / |weight| over the slices of the trend.
    """

    name: str
    members: tuple[int, ...]
    params: tuple[Param, ...]
    lengths: NDArray[np.float64]
    there: NDArray[np.bool_]
    shares: tuple[float, ...]
    step: float

    @property
    def first(self) -> float:
        return float(self.lengths[self.there][0]) if self.there.any() else float("nan")

    @property
    def last(self) -> float:
        return float(self.lengths[self.there][-1]) if self.there.any() else float("nan")

    @property
    def change(self) -> float:
        return relative(self.first, self.last)

    @property
    def course(self) -> str:
        """The change in words: of folded siblings the range."""
        return changes(self.shares, self.change, self.first, self.last)


def relative(first: float, last: float) -> float:
    """(last - first) / first; infinite where something came from zero or grew to infinity, 0 where both are equal.

    >>> relative(2.0, 3.0), relative(0.0, 1.0), relative(0.0, 0.0), relative(math.inf, math.inf)
    (0.5, inf, 0.0, nan)
    """
    if first == last and math.isfinite(last):
        return 0.0
    return (last - first) / first if first else float("inf") if last > 0 else float("nan")


def together(columns: Columns, members: Sequence[int], quantity: str = "weight") -> NDArray[np.float64]:
    """[records]: l2 norm of the tensors as one vector; absent ones add nothing, NaN where none is there."""
    which = list(members)
    there = columns.present(quantity)[:, which]
    squares = np.where(there, columns.matrix("l2", quantity)[:, which] ** 2, 0.0)
    lengths: NDArray[np.float64] = np.where(there.any(axis=1), np.sqrt(squares.sum(axis=1)), np.nan)
    return lengths


def row(columns: Columns, name: str, members: Sequence[int]) -> Row:
    """The tensors in columns `members` as one row."""
    there = columns.present()[:, list(members)]
    lengths = together(columns, members)
    return Row(
        name,
        tuple(members),
        tuple(columns.params[n] for n in members),
        lengths,
        np.logical_or.reduce(there, axis=1),
        tuple(_share(columns.matrix()[:, n], there[:, place]) for place, n in enumerate(members)),
        _median_step(columns, together(columns, members, "update"), lengths),
    )


def _share(lengths: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    known = lengths[there]
    return relative(float(known[0]), float(known[-1])) if known.size else float("nan")


def _median_step(columns: Columns, updates: NDArray[np.float64], lengths: NDArray[np.float64]) -> float:
    """Over slices of steps, not over records: the many records of the first steps would speak for the whole run."""
    usable = columns.trained & np.isfinite(updates) & np.isfinite(lengths) & (lengths > 0)
    ratios = np.divide(updates, lengths, out=np.zeros_like(lengths), where=usable)
    taken = [ratio for ratio in slices(columns.steps, ratios, usable, of=np.median) if ratio is not None]
    return float(np.median(taken)) if taken else float("nan")


# From the finest to the coarsest: a name with its numbers taken out, and what else siblings must share.
def _whole_numbers(param: Param) -> str:
    return re.sub(r"(?<![^./])\d+(?![^./])", "*", param.name)


def _all_numbers(param: Param) -> str:
    return re.sub(r"\d+", "*", param.name)


def _kind(param: Param) -> str:
    return " ".join(filter(None, (param.layer, param.role, "" if param.part == "whole" else param.part)))


Fold = tuple[Callable[[Param], str], bool]  # template, and whether siblings share a shape
FOLDS: tuple[Fold, ...] = (
    (_whole_numbers, True),
    (_all_numbers, True),
    (_whole_numbers, False),
    (_all_numbers, False),
    (_kind, False),
)


def single(columns: Columns, members: Iterable[int]) -> list[Row]:
    """A row for each tensor."""
    return [row(columns, columns.tensors[n], [n]) for n in members]


def folded(columns: Columns, members: Sequence[int], fold: Fold) -> list[Row]:
    """A row for each set of siblings, in order of first appearance; one alone keeps its name."""
    template, same_shape = fold
    groups: dict[Hashable, list[int]] = {}
    for n in members:
        param = columns.params[n]
        key = (template(param), param.role, param.part, param.shape if same_shape else None)
        groups.setdefault(key, []).append(n)
    return [row(columns, _name(columns, key[0], group), group) for key, group in groups.items()]  # type: ignore[index]


def _name(columns: Columns, template: str, group: Sequence[int]) -> str:
    return columns.tensors[group[0]] if len(group) == 1 else f"{template} x{len(group)}"
