"""A recording, read: what was recorded when, and every norm of it as arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.readers import blobs, envelope, formula, grouped, index, tables
from normkit.readers.database import opened
from normkit.readers.envelope import Envelope
from normkit.readers.index import EMPTY
from normkit.readers.newest import latest
from normkit.readers.words import FAR, check_word, step_given
from normkit.types import QUANTITIES, SUMS, Finding, Param, Reading, Stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

Formula = Callable[["index.Layout", "Matrix"], "Matrix"]


class Event(NamedTuple):
    """Something that happened in mid-run; `wall` is seconds since 1970-01-01 UTC."""

    wall: float
    kind: str
    text: str
    step: int | None
    tensor: str | None


class Recording:
    """What the file at `path` held when it was opened, or when `refresh()` was last called.

    Arrays have one value per recorded step, ascending; NaN where there is none. Of several records of one step the
    last one counts, and a later attempt replaces all from its first step on. The columns are the tensors of the whole
    run, in order of first appearance.

    Raises: ArgumentError if `path` is none. FileError if the file is missing, damaged, newer than this normkit, or not
        a recording.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
            raise ArgumentError(f"path={in_brief(path)}: expected the path of a recording, such as 'runs/mine.norms'")
        self.path = Path(path)
        self.refresh()

    def refresh(self) -> Recording:
        """Look at the file again, which another process may still be writing; returns the recording itself."""
        with opened(self.path) as con:
            self._index = index.read(con)
        self._logged: list[dict[str, float]] | None = None
        self._last: tuple[tuple[str, str], Matrix] | None = None  # so that a loop over `series` reads the file once
        return self

    def __repr__(self) -> str:
        steps = self.steps
        span = f"steps {steps[0]} to {steps[-1]}" if len(steps) else "no step yet"
        end = self.meta.get("end", "not finished")
        return f"<Recording {str(self.path)!r}: {len(steps)} records x {len(self.tensors)} tensors, {span}, {end}>"

    def __len__(self) -> int:
        return len(self._index.steps)

    @property
    def meta(self) -> dict[str, Any]:
        """What is known of the run as a whole."""
        return dict(self._index.meta)

    @property
    def params(self) -> tuple[Param, ...]:
        """The newest description of each tensor, one per column of `matrix`."""
        return self._index.params

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the columns of `matrix`."""
        return tuple(self._index.columns)

    @property
    def steps(self) -> NDArray[np.int64]:
        """The recorded optimizer steps, ascending; 0 is before training."""
        return self._index.steps.copy()

    @property
    def walls(self) -> NDArray[np.float64]:
        """When each was recorded, in seconds since 1970-01-01 UTC."""
        return self._index.walls.copy()

    @property
    def epochs(self) -> NDArray[np.float64]:
        """The epoch of each record; NaN where the run did not say."""
        return self._index.epochs.copy()

    def matrix(self, norm: str = "l2", quantity: str = "weight") -> Matrix:
        """One norm of all tensors at all recorded steps.

        Shapes: -> [steps][tensors] float64, columns as in `tensors`; NaN where there is none.
        Raises: ArgumentError for a norm or quantity that does not exist.
        """
        kind = formula.kept(norm)
        if self._last is None or self._last[0] != (kind, quantity):
            values = self._assembled(
                formula.NEEDS[kind], quantity, lambda layout, rows: formula.value(kind, rows, layout.counts)
            )
            self._last = ((kind, quantity), values)
        return self._last[1].copy()

    def rows(self, name: str, norm: str = "l2", quantity: str = "weight", *, per: str | int = "out") -> Matrix:
        """One norm of each group of a tensor that was recorded `per="out"` (or "in"): of each row of a matrix.

        Shapes: -> [steps][groups] float64; NaN where there is none.
        Raises: ArgumentError for a tensor that was not recorded so, or a norm or quantity that does not exist.
        """
        self._column(name)
        check_word("quantity", quantity, QUANTITIES)
        with opened(self.path) as con:
            return grouped.read(con, self._index, name, per=str(per), kind=formula.kept(norm), quantity=quantity)

    def envelope(
        self,
        norm: str = "l2",
        quantity: str = "weight",
        *,
        spans: int = 1000,
        start: int | None = None,
        stop: int | None = None,
    ) -> Envelope:
        """Least, mean and most of one norm of all tensors in at most `spans` spans of steps: a heat map, a curve.

        Reads blocks of the pyramid instead of records where these would be too many, so that a run of any length takes
        milliseconds, and its oldest part is there even where its records are not. Blocks are float32. `start` and
        `stop` (included) choose steps.

        Shapes: see `Envelope`; columns as in `tensors`.
        Raises: ArgumentError for a norm or quantity that does not exist, `std` (which does not follow from extremes),
            and unless spans >= 1.
        """
        check_word("quantity", quantity, QUANTITIES)
        if not hasattr(spans, "__index__") or spans < 1:
            raise ArgumentError(f"spans={in_brief(spans)}: expected a whole number of at least 1")
        first, last = step_given("start", start, -FAR), step_given("stop", stop, FAR)
        kind = formula.kept(norm)
        with opened(self.path) as con:
            return envelope.read(con, self._index, kind, quantity, spans=int(spans), start=first, stop=last)

    def sums(self, name: str, quantity: str = "weight") -> Matrix:
        """One row of the stored sums themselves, such as "dot": the sum of w times gradient, or of w times update.

        Shapes: -> [steps][tensors] float64; NaN where there is none.
        Raises: ArgumentError for a sum or quantity that does not exist.
        """
        check_word("sum", name, SUMS)
        return self._assembled((name,), quantity, lambda layout, rows: rows[0])

    def series(self, name: str, norm: str = "l2", quantity: str = "weight") -> NDArray[np.float64]:
        """One norm of the tensor `name` at all recorded steps; for all tensors see `matrix`.

        Shapes: -> [steps] float64; NaN where there is none.
        Raises: ArgumentError for a tensor, norm or quantity that does not exist.
        """
        column = self._column(name)
        return self.matrix(norm, quantity)[:, column].copy()

    def _assembled(self, needs: Sequence[str], quantity: str, of: Formula) -> Matrix:
        """The formula's values of every layout, in the rows of its records and the columns of its tensors."""
        check_word("quantity", quantity, QUANTITIES)
        found = self._index
        with opened(self.path) as con:
            blobs.check_counts(found, blobs.size_on_disk(self.path))
            out = np.full((len(found.steps), len(found.params)), np.nan)
            for number, layout in found.used_layouts:
                places = np.flatnonzero(found.layout_numbers == number)
                rows = blobs.read_rows(con, number, layout, found.seqs[places], quantity=quantity, names=needs)
                columns = np.array([found.columns[param.name] for param in layout.params], dtype=np.int64)
                if layout.params == found.params and len(places) == len(out) and layout.width == len(columns):
                    return of(layout, rows)  # the usual case: one layout, and nothing besides
                out[np.ix_(places, columns)] = of(layout, rows[:, :, layout.positions])
        return out

    def at(self, step: int) -> dict[str, dict[str, Stats]]:
        """The sums at one recorded step: tensor -> quantity -> Stats; what was not there is left out.

        Raises: ArgumentError if the step was not recorded.
        """
        layout, read = self._sums_at(self._row(step))
        found: dict[str, dict[str, Stats]] = {param.name: {} for param in layout.params}
        for quantity, matrix in read.items():
            there = np.isfinite(matrix[4:6]).all(axis=0)  # counts are numbers even where every entry is NaN
            for column, values in zip(np.flatnonzero(there).tolist(), matrix[:, there].T.tolist(), strict=True):
                found[layout.params[column].name][quantity] = _stats(layout.entries[column], values)
        return found

    def reading(self, step: int) -> Reading:
        """The record of one step as it could be written again: its sums by quantity, [7][tensors] as in `tensors`.

        Raises: ArgumentError if the step was not recorded.
        """
        row, found = self._row(step), self._index
        layout, read = self._sums_at(row)
        columns = [found.columns[param.name] for param in layout.params]
        values = {quantity: np.full((len(SUMS), len(found.params)), np.nan) for quantity in read}
        for quantity, matrix in read.items():
            values[quantity][:, columns] = matrix
        epoch = None if np.isnan(found.epochs[row]) else int(found.epochs[row])
        logged = self._all_logged()[row]
        return Reading(step, 0, float(found.walls[row]), values, epoch=epoch, scalars=logged)

    def _sums_at(self, row: int) -> tuple[index.Layout, dict[str, Matrix]]:
        number, seq = int(self._index.layout_numbers[row]), int(self._index.seqs[row])
        layout = self._index.layouts.get(number, EMPTY)
        with opened(self.path) as con:
            return layout, blobs.read_record(con, seq, layout)

    @property
    def scalar_names(self) -> tuple[str, ...]:
        """Names of the scalars that were logged (lr, loss, ...), in order of first appearance."""
        return tuple(dict.fromkeys(name for logged in self._all_logged() for name in logged))

    def scalar(self, name: str) -> NDArray[np.float64]:
        """A logged scalar at all recorded steps.

        Shapes: -> [steps] float64; NaN where it was not logged.
        Raises: ArgumentError if it was never logged.
        """
        check_word("scalar", name, self.scalar_names)
        return np.array([logged.get(name, np.nan) for logged in self._all_logged()])

    @property
    def events(self) -> list[Event]:
        """What happened in mid-run, in order."""
        with opened(self.path) as con:
            rows = con.execute("SELECT wall, kind, text, step, tensor FROM event ORDER BY id").fetchall()
        return [Event(*row) for row in rows]

    def stored_findings(self) -> list[Finding]:
        """What was found when the run ended."""
        with opened(self.path) as con:
            return index.findings(con)

    def findings(self) -> list[Finding]:
        """What is worth knowing about the run: as stored at its end, else found now."""
        if "findings" in self._index.meta:
            return self.stored_findings()
        from normkit import diagnose

        return diagnose.findings(self)

    def to_arrow(self, *, select: object = None, quantities: str | Sequence[str] = QUANTITIES) -> Any:
        """The recording as a `pyarrow.Table`, one row for each step, tensor and quantity; see `readers.tables`."""
        return tables.to_arrow(self, select=select, quantities=quantities)

    def to_pandas(self, *, select: object = None, quantities: str | Sequence[str] = QUANTITIES) -> Any:
        """The same as a `pandas.DataFrame`; epochs are Int64, names are categories."""
        return tables.to_pandas(self, select=select, quantities=quantities)

    def _all_logged(self) -> list[dict[str, float]]:
        if self._logged is None:
            with opened(self.path) as con:
                self._logged = index.scalars(con, self._index.seqs)
        return self._logged

    def _column(self, name: str) -> int:
        check_word("tensor", name, self.tensors)
        return self._index.columns[name]

    def _row(self, step: int) -> int:
        steps = self._index.steps
        row = int(np.searchsorted(steps, step))
        if row == len(steps) or steps[row] != step:
            near = steps[max(0, row - 1) : row + 1].tolist()
            raise ArgumentError(f"step={step!r} was not recorded in {str(self.path)!r}; the nearest that were: {near}")
        return row


def load(path: str | os.PathLike[str] | None = None) -> Recording:
    """The recording at `path`; without it the newest one in `runs`.

    Raises: FileError if there is none, or it cannot be read as a recording.
    """
    return Recording(latest() if path is None else path)


def _stats(count: int, column: list[float]) -> Stats:
    total, absolute, squares, largest, zeros, nonfinite, dot = column
    return Stats(count, total, absolute, squares, largest, int(zeros), int(nonfinite), dot)
