"""Two recordings side by side: where they part, and the ratio of their norms."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from normkit.errors import ArgumentError
from normkit.report.heading import Run
from normkit.store.paths import shown
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

    Flags = NDArray[np.bool_]

WEIGHT_SUMS = SUMS[:6]


@dataclass(frozen=True)
class Parting:
    """The first common step at which sums differ, the tensors they belong to, and the last common step before."""

    step: int
    tensors: tuple[str, ...]
    before: int | None


@dataclass(frozen=True, eq=False)
class Ratio:
    """One norm of one tensor in both runs: at the last common step, and its ratio b / a at all of them.

    `ratios` are 1 where both are equal, infinite where only a is 0, and NaN where one run lacks the tensor.
    """

    name: str
    a: float
    b: float
    ratios: NDArray[np.float64]
    there: Flags

    @property
    def last(self) -> float:
        return float(self.ratios[-1])

    @property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest, NaN aside."""
        known = self.ratios[~np.isnan(self.ratios)]
        return (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)

    @property
    def distance(self) -> float:
        """|log ratio|: half is as far from 1 as double; infinite where there is no such ratio.

        >>> [Ratio("w", 1.0, 1.0, np.array([last]), np.array([True])).distance for last in (1.0, math.nan, 0.0)]
        [0.0, inf, inf]
        """
        return abs(math.log(self.last)) if 0 < self.last < math.inf else math.inf


class Pair:
    """Recordings `a` and `b` at the steps and for the tensors that both have.

    Raises: ArgumentError where they have no step or no tensor in common.
    """

    def __init__(self, a: Run, b: Run, *, select: Collection[str] | None = None) -> None:
        wanted = {*a.tensors, *b.tensors} if select is None else set(select)
        self.a, self.b = a, b
        self.only_a = [name for name in a.tensors if name in wanted and name not in set(b.tensors)]
        self.only_b = [name for name in b.tensors if name in wanted and name not in set(a.tensors)]
        self.tensors = [name for name in a.tensors if name in wanted and name in set(b.tensors)]
        self.steps, *rows = np.intersect1d(a.steps, b.steps, return_indices=True)
        self._places = [np.ix_(found, _columns(run, self.tensors)) for run, found in zip((a, b), rows, strict=True)]
        self._check()

    def _check(self) -> None:
        a, b = self.a, self.b
        both = f"{shown(a.path)!r} and {shown(b.path)!r}"
        if not self.tensors:
            raise ArgumentError(f"{both} have no tensor in common: {_few(a.tensors)} in A, {_few(b.tensors)} in B")
        if not len(self.steps):
            raise ArgumentError(f"{both} have no step in common: {_span(a)} in A, {_span(b)} in B")

    @cached_property
    def reshaped(self) -> list[str]:
        """Common tensors whose shapes differ."""
        shapes = [{param.name: param.shape for param in run.params} for run in (self.a, self.b)]
        return [name for name in self.tensors if shapes[0].get(name) != shapes[1].get(name)]

    def parting(self, tolerance: float = 0.0) -> Parting | None:
        """Where any sum of any common tensor's weight first differs; None where none does.

            |a - b| > tolerance * max(|a|, |b|)        of the sum of w: tolerance * max(sum |w|)

        A `tolerance` of 0 compares the bits. NaN is equal to NaN.
        """
        sums = {name: self._both(name) for name in WEIGHT_SUMS}
        differ = np.zeros((len(self.steps), len(self.tensors)), dtype=bool)
        for name, (a, b) in sums.items():
            scale = np.fmax(*map(np.abs, sums["abs" if name == "sum" else name]))
            differ |= _differ(a, b, scale, tolerance)
        rows = np.flatnonzero(differ.any(axis=1))
        if not rows.size:
            return None
        first = int(rows[0])
        names = tuple(self.tensors[n] for n in np.flatnonzero(differ[first]))
        return Parting(int(self.steps[first]), names, int(self.steps[first - 1]) if first else None)

    def ratios(self, kind: str = "l2") -> list[Ratio]:
        """One per common tensor, those farthest from 1 at the last common step first."""
        a, b = (run.matrix(kind)[place] for run, place in zip((self.a, self.b), self._places, strict=True))
        counts = self._both("nonfinite")  # a number wherever there is a tensor, be it full of NaN
        there = ~np.isnan(counts[0]) & ~np.isnan(counts[1])
        with np.errstate(all="ignore"):
            shares = np.where(a == b, 1.0, b / a)
        found = [
            Ratio(name, float(a[-1, n]), float(b[-1, n]), shares[:, n], there[:, n])
            for n, name in enumerate(self.tensors)
        ]
        return sorted(found, key=lambda one: -one.distance)

    def _both(self, name: str) -> tuple[Matrix, Matrix]:
        a, b = (run.sums(name)[place] for run, place in zip((self.a, self.b), self._places, strict=True))
        return a, b


def _differ(a: Matrix, b: Matrix, scale: Matrix, tolerance: float) -> Flags:
    with np.errstate(all="ignore"):
        apart = a.view(np.int64) != b.view(np.int64) if not tolerance else ~(np.abs(a - b) <= tolerance * scale)
        alike = (a == b) & (tolerance > 0)
    flags: Flags = apart & ~alike & ~(np.isnan(a) & np.isnan(b))
    if tolerance:  # a finite value is not within any share of infinity
        flags |= np.isinf(a) != np.isinf(b)
    return flags


def _columns(run: Run, names: Sequence[str]) -> NDArray[np.int64]:
    place = {name: n for n, name in enumerate(run.tensors)}
    return np.array([place[name] for name in names], dtype=np.int64)


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "none"


def _span(run: Run) -> str:
    count = len(run.steps)
    return f"{count} records of steps {run.steps[0]} to {run.steps[-1]}" if count else "no record"
