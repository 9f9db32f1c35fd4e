"""About ten numbers that say of one record what a chart beside the loss should show."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normkit import diagnose
from normkit.readers.recording import Recording
from normkit.types import SUMS, Param, Reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

NEEDS = ("sq", "max", "zeros", "nonfinite")  # of the sums
SQ, MAX, ZEROS, NONFINITE = (SUMS.index(name) for name in NEEDS)
FIGURES = {  # name -> what it is of: of the quantity itself, or of all quantities that the record has
    "weight_l2": "length of all weights together",
    "weight_linf": "largest |w|",
    "grad_l2": "length of all gradients together",
    "update_l2": "length of all updates together",
    "update_ratio": "largest |dw| / |w| of any tensor",
    "update_ratio_tensor": "its position in the recording's list of tensors",
    "zeros": "share of the weights that are 0",
    "nonfinite": "entries that are NaN or infinite, of any quantity",
    "findings": "number of findings",
}
REST = 100  # times as long as a look took, nobody looks again: 1 % of the time


class Members:
    """The first columns of a layout, `params`; the rest are groups.

    entries  how many each has
    counted  the columns that make up the model: no buffers, and of a normalized weight the effective one, not its parts
    """

    def __init__(self, params: Sequence[Param]) -> None:
        self.params = tuple(params)
        self.entries = np.array([param.count for param in params], dtype=np.float64)
        self.counted = np.array(
            [n for n, param in enumerate(params) if param.role != "buffer" and param.part not in ("g", "v")], np.intp
        )
        every = len(self.counted) == len(self.params)
        self.taken = slice(len(self.params)) if every else self.counted  # the same, without a copy where it can be


def figures(reading: Reading, members: Members) -> dict[str, float]:
    """The figures of one record, as far as it has them: of the columns that make up the model.

    The ratio is |w_t - w_{t-1}|_2 / |w_t|_2; a tensor whose weights are all 0 has none.

    Keeps: a NaN among the weights makes their lengths NaN, infinities make them infinite; `nonfinite` counts both.
    """
    values = {quantity: matrix[:, members.taken] for quantity, matrix in reading.values.items()}
    there = {quantity: ~np.isnan(matrix[ZEROS]) for quantity, matrix in values.items()}
    of = {name: _of(matrix, there[name]) for name, matrix in values.items() if there[name].any()}
    found = {f"{quantity}_l2": float(np.sqrt(matrix[SQ].sum())) for quantity, matrix in of.items()}
    if of:
        found["nonfinite"] = float(np.sum([matrix[NONFINITE].sum() for matrix in of.values()]))
    if "weight" in of:
        entries = members.entries[members.taken][there["weight"]].sum()
        found["weight_linf"] = float(of["weight"][MAX].max())
        found["zeros"] = float(of["weight"][ZEROS].sum() / max(entries, 1.0))
    if "weight" in of and "update" in of:
        found |= _largest_ratio(values["update"][SQ], values["weight"][SQ], members.counted)
    return {name: found[name] for name in FIGURES if name in found}


def _of(matrix: Matrix, there: NDArray[np.bool_]) -> Matrix:
    return matrix if there.all() else matrix[:, there]


def _largest_ratio(updates: Matrix, weights: Matrix, columns: NDArray[np.intp]) -> dict[str, float]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(weights > 0, np.sqrt(updates / weights), np.nan)
    if np.isnan(ratios).all():
        return {}
    place = int(np.nanargmax(ratios))
    return {"update_ratio": float(ratios[place]), "update_ratio_tensor": float(columns[place])}


class Looks:
    """Counts the findings of a recording that is still being written, in at most 1 % of the time."""

    def __init__(self) -> None:
        self._again = 0.0  # monotonic time before which nobody looks
        self._known: dict[str, float] = {}

    def count(self, path: Path) -> dict[str, float]:
        """{"findings": number} as of the newest look, which may be a while ago; {} before there was anything to see."""
        began = time.monotonic()
        if began >= self._again:
            with contextlib.suppress(Exception):  # a file just being begun, or a disk that fails: the writer says so
                self._known = {"findings": float(len(diagnose.findings(Recording(path))))}
            took = time.monotonic() - began
            self._again = began + took * (1 + REST)
        return self._known
