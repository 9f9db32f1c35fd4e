"""The recording that a resumed run goes on with: at which step it stands, and what is known of that step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from normkit.readers.recording import Recording
from normkit.recording.about import now
from normkit.types import SUMS, Param, Reading

if TYPE_CHECKING:
    from normkit.store.writer import Writer
    from normkit.types import Matrix

SAME = 1e-11  # relative: sums of equal weights, which another number of threads may add in another order


class Start(NamedTuple):
    """Where a resumed run stands: the optimizer steps done, and how that is known.

    `record` is the record of that very step, where its weights are the present ones.
    """

    step: int
    known: str
    record: Reading | None = None


class Past:
    """The recording that a run goes on with."""

    def __init__(self, recording: Recording) -> None:
        self.path = recording.path.absolute()
        self.claim = recording.meta.get("claim")
        self._recording = recording

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the recording says of the run as a whole."""
        return self._recording.meta

    @property
    def newest(self) -> tuple[Sequence[Param], Reading] | None:
        """The record of its last step, and the tensors that are its columns."""
        steps = self._recording.steps
        return (self._recording.params, self._recording.reading(int(steps[-1]))) if len(steps) else None

    def fits(self, names: Sequence[str]) -> bool:
        """Is it of the same model, as far as its tensors have the same names?"""
        return not self._recording.tensors or bool({*names} & {*self._recording.tensors})

    def settle(
        self, writer: Writer, present: Reading, names: Sequence[str], *, told: int | None, counted: int | None
    ) -> Start:
        """Find the step at which training stands, and note in the file that it goes on there; see `start`."""
        squares = present.values["weight"][SUMS.index("sq")].tolist()
        start = self.start(dict(zip(names, squares, strict=False)), told=told, counted=counted)
        writer.update_meta({"attempts": self._attempts(start.step, counted)})
        writer.event("resumed", f"goes on at step {start.step}, {start.known}", step=start.step)
        return start

    def start(self, weights: Mapping[str, float], *, told: int | None, counted: int | None) -> Start:
        """The step at which training stands now.

        told     what the user says
        weights  name -> sum of squares now: the newest record with the same ones is that of this moment
        counted  steps that the optimizer says it has made in its life, or None
        """
        found = self._steps_with(weights)
        if told is not None:
            return Start(told, "as step= says", self._recording.reading(told) if told in found else None)
        if found:
            return Start(found[-1], "whose weights are the present ones", self._recording.reading(found[-1]))
        newest = self._known_attempts()[-1]
        before = int(newest.get("counted") or 0)
        if counted is not None and counted > before:
            return Start(int(newest["began"]) + counted - before, "as the optimizer's state says")
        steps = self._recording.steps
        last = int(steps[-1]) if len(steps) else 0
        return Start(last, "the last one recorded, as neither the weights nor the optimizer tell")

    def before(self, step: int) -> int:
        """How many of its records are of earlier steps."""
        return int((self._recording.steps < step).sum())

    def epoch(self, step: int) -> int | None:
        """How many epochs had ended by that step, as far as the ends or the records tell; None where neither does."""
        epochs = self._recording.epochs[self._recording.steps <= step]
        return max(
            [*epochs[~np.isnan(epochs)].astype(int).tolist(), *(number for _, number in self.ends(step))], default=None
        )

    def ends(self, step: int) -> list[list[int]]:
        """[step, number] of the last epochs that ended by that step."""
        return [[at, number] for at, number in self._recording.meta.get("epoch_ends", []) if at <= step]

    def placed(self, record: Reading, names: Sequence[str], layout: int) -> Reading:
        """The record with its columns as the present layout has them."""
        columns = {name: column for column, name in enumerate(self._recording.tensors)}
        there = [(place, columns[name]) for place, name in enumerate(names) if name in columns]
        to, of = ([pair[side] for pair in there] for side in (0, 1))
        values = {name: np.full((len(matrix), len(names)), np.nan) for name, matrix in record.values.items()}
        for name, matrix in record.values.items():
            values[name][:, to] = matrix[:, of]
        if "weight" in values:
            values["weight"] = values["weight"][:-1]  # a weight has no dot
        return Reading(record.step, layout, record.wall, values, epoch=record.epoch, scalars=record.scalars)

    def _known_attempts(self) -> list[dict[str, Any]]:
        meta = self._recording.meta
        first = {"began": 0, "started": meta.get("started"), "counted": meta.get("counted_before")}
        return [*meta.get("attempts", [first])]

    def _attempts(self, step: int, counted: int | None) -> list[dict[str, Any]]:
        """The list of attempts, with the one that begins now at `step`."""
        *older, newest = self._known_attempts()
        ended = {**newest, "end": self._recording.meta.get("end", "killed")}
        return [*older, ended, {"began": step, "started": now(), "counted": counted}]

    def _steps_with(self, weights: Mapping[str, float]) -> list[int]:
        """The recorded steps whose weights are these, as far as both are known."""
        columns = [column for column, name in enumerate(self._recording.tensors) if name in weights]
        if not columns:
            return []
        present = np.array([weights[self._recording.tensors[column]] for column in columns])
        then: Matrix = self._recording.sums("sq")[:, columns]
        same = np.isclose(then, present, rtol=SAME, atol=0.0) | np.isnan(then)
        steps: list[int] = self._recording.steps[same.all(axis=1) & ~np.isnan(then).all(axis=1)].tolist()
        return steps
