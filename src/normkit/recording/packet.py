"""A record on its way: results that may still be under way on a device, and the reading they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from normkit.types import SUMS, Reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

ROWS = {"weight": len(SUMS) - 1, "grad": len(SUMS), "update": len(SUMS)}


class Late(Protocol):
    """A result that may not be here yet."""

    def ready(self) -> bool:
        """True when `wait` would not wait."""

    def wait(self) -> tuple[NDArray[np.float64], ...]:
        """The arrays, waiting for them if need be."""


@dataclass(frozen=True)
class Piece:
    """Matrices of some columns of a record: one per quantity named, each [sums][columns], the last sums may lack.

    `unscale` is what a gradient scaler multiplied the gradients by (a Late of one number), to be divided out.
    """

    late: Late
    columns: NDArray[np.intp]
    quantities: tuple[str, ...]
    unscale: Late | None = None

    def ready(self) -> bool:
        """True when every part has arrived."""
        return self.late.ready() and (self.unscale is None or self.unscale.ready())


@dataclass
class Packet:
    """Everything one record needs; `reading()` joins it when all of it has arrived.

    `fate` is a Late of two numbers for steps that a gradient scaler may have skipped on the device: was this step
    skipped, and how many were skipped before it.
    """

    step: int
    layout: int
    tensors: int
    wall: float
    pieces: Sequence[Piece]
    epoch: int | None = None
    scalars: dict[str, float] = field(default_factory=dict)
    late_scalars: dict[str, Late] = field(default_factory=dict)
    fate: Late | None = None
    seq: int | None = None

    def ready(self) -> bool:
        """True when `reading` would not wait."""
        lates: list[Any] = [*self.pieces, *self.late_scalars.values()]
        return all(late.ready() for late in lates) and (self.fate is None or self.fate.ready())

    def reading(self) -> Reading | None:
        """The finished record, or None when the step turned out to be skipped."""
        step = self.step
        if self.fate is not None:
            skipped, before = (float(number) for number in self.fate.wait()[0])
            if skipped:
                return None
            step -= round(before)
        self.scalars.update({name: float(late.wait()[0].reshape(-1)[0]) for name, late in self.late_scalars.items()})
        self.late_scalars.clear()
        return Reading(step, self.layout, self.wall, self._values(), epoch=self.epoch, scalars=dict(self.scalars))

    def _values(self) -> dict[str, Matrix]:
        values: dict[str, Matrix] = {}
        for piece in self.pieces:
            for quantity, matrix in zip(piece.quantities, piece.late.wait(), strict=True):
                if quantity not in values:
                    values[quantity] = np.full((ROWS[quantity], self.tensors), np.nan)
                values[quantity][: len(matrix), piece.columns] = _unscaled(
                    matrix, piece.unscale if quantity == "grad" else None
                )
        return values


def _unscaled(matrix: Matrix, unscale: Late | None) -> Matrix:
    """Sums of q / s from sums of q: the linear rows divided by s, the squares by s^2, the counts left alone."""
    if unscale is None:
        return matrix
    scale = float(unscale.wait()[0].reshape(-1)[0])
    powers = {"sum": 1, "abs": 1, "sq": 2, "max": 1, "dot": 1}
    divided: Matrix = matrix / np.array([[scale ** powers.get(name, 0)] for name in SUMS[: len(matrix)]])
    return divided
