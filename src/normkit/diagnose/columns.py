"""A recording as the rules see it: columns of numbers, each matrix read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from normkit.errors import NormkitError
from normkit.types import Param, Stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

    Flags = NDArray[np.bool_]


T = TypeVar("T")
FEW = 8  # records: to read one takes a hundredth of a pass over them all


class Source(Protocol):
    """What a rule reads from: a `Recording`, or anything with these attributes."""

    @property
    def tensors(self) -> Sequence[str]: ...
    @property
    def params(self) -> Sequence[Param]: ...
    @property
    def steps(self) -> NDArray[np.int64]: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...
    def matrix(self, norm: str = "l2", quantity: str = "weight") -> Matrix: ...
    def sums(self, name: str, quantity: str = "weight") -> Matrix: ...
    def scalar(self, name: str) -> NDArray[np.float64]: ...
    def at(self, step: int) -> Mapping[str, Mapping[str, Stats]]: ...


def items(value: Any, kind: type[T]) -> list[T]:
    """What a list holds of one kind; a damaged file may hold anything, and no list.

    >>> items(["a", 1, None], str), items("a", str)
    (['a'], [])
    """
    return [item for item in value if isinstance(item, kind)] if isinstance(value, list | tuple) else []


class Columns:
    """The same recording with one `Param` per column and each matrix read at most once.

    A tensor that has left the model (it stands in an older layout only) keeps its column, under a `Param` that knows
    nothing but the name.
    """

    def __init__(self, source: Source) -> None:
        known = {param.name: param for param in source.params}
        self.source = source
        self.tensors = list(source.tensors)
        self.params = [known.get(name) or Param(name, (), "", "other", trainable=False) for name in self.tensors]
        self.steps = np.asarray(source.steps, dtype=np.int64)
        self.meta = source.meta
        self._matrices: dict[tuple[str, str], Matrix] = {}
        self._present: dict[str, Flags] = {}

    @classmethod
    def of(cls, source: Source | Columns) -> Columns:
        """`source` itself where it is one already."""
        return source if isinstance(source, Columns) else cls(source)

    def matrix(self, norm: str = "l2", quantity: str = "weight") -> Matrix:
        """[records][tensors]; NaN where there is none."""
        key = (norm, quantity)
        if key not in self._matrices:
            read = self._nonfinite(quantity) if norm == "nonfinite" else self.source.matrix(norm, quantity)
            self._matrices[key] = read
        return self._matrices[key]

    def _nonfinite(self, quantity: str) -> Matrix:
        """Where a length is finite there is no such entry; so the few records in which one is not are read alone."""
        lengths = self.matrix("l2", quantity)
        rows = np.flatnonzero(~np.isfinite(lengths).all(axis=1))
        if len(rows) > FEW:
            return self.source.matrix("nonfinite", quantity)
        entries = np.zeros_like(lengths)
        for row in rows:
            found = self.source.at(int(self.steps[row]))
            there = [found.get(name, {}).get(quantity) for name in self.tensors]
            entries[row] = [np.nan if stats is None else stats.nonfinite for stats in there]
        return entries

    def sizes(self, quantity: str = "weight") -> Matrix:
        """[records][tensors]: the root mean square entry, from the lengths and the newest shape of each tensor."""
        counts = np.array([max(param.count, 1) for param in self.params], dtype=np.float64)
        sizes: Matrix = self.matrix("l2", quantity) / np.sqrt(counts)
        return sizes

    def scalar(self, name: str) -> NDArray[np.float64]:
        """One value per record, NaN where there is none."""
        try:
            return np.asarray(self.source.scalar(name), dtype=np.float64)
        except NormkitError:
            return np.full(len(self.steps), np.nan)

    def present(self, quantity: str = "weight") -> Flags:
        """[records][tensors]: was there one? (A tensor full of NaN is there: its entries were counted.)"""
        if quantity not in self._present:
            self._present[quantity] = ~np.isnan(self.matrix("nonfinite", quantity))
        return self._present[quantity]

    @property
    def trained(self) -> Flags:
        """[records]: taken after at least one optimizer step."""
        flags: Flags = self.steps > 0
        return flags

    @property
    def last(self) -> int:
        """The newest recorded step; 0 where there is none."""
        return int(self.steps[-1]) if len(self.steps) else 0

    def cosines(self) -> Matrix:
        """[records][tensors]: w.g / |w| |g|, NaN where one of them is zero or not there."""
        lengths = self.matrix("l2") * self.matrix("l2", "grad")
        with np.errstate(invalid="ignore", over="ignore"):
            cosines: Matrix = self.source.sums("dot", "grad") / np.where(lengths > 0, lengths, np.nan)
        return cosines
