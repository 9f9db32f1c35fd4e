"""Gradients and updates: which steps the ring inside the training step is to keep, and when it is emptied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from normkit.keras.ring import Ring
from normkit.keras.walk import Located
from normkit.recording.schedule import Schedule

if TYPE_CHECKING:
    from normkit.types import Matrix

LENGTH = 128  # steps that a ring holds where nobody knows how many an epoch has
LONGEST = 1024
REACH = 4096  # steps that are looked ahead


class Gather:
    """A ring on the model's optimizer, kept filled with the steps that the schedule wants.

    What a step inside a compiled function costs nobody can tell, so "auto" is here its rule alone: no step is passed
    over, and the ones between cost next to nothing. At the end of an epoch of known `length` only its last step is
    kept besides; where the length is unknown, or a loss scaler skips steps, each step is measured for it.

    All steps here are the optimizer's own; the recording may be `offset` steps further.
    """

    def __init__(
        self,
        model: Any,
        located: Sequence[Located],
        what: Sequence[str],
        schedule: Schedule,
        *,
        length: int | None,
        offset: int,
    ) -> None:
        self._schedule, self._offset = schedule, offset
        self._stride = int(getattr(model, "steps_per_execution", 1))
        self._depth = min(Ring.most(len(located), what), max(2, self._stride, min(length or LENGTH, LONGEST)))
        self._ring = Ring(model, located, what, self._depth)
        self._ring.attach()
        by_epoch = schedule.rule is not None and schedule.rule.epochs is not None
        self._length = length if by_epoch and not hasattr(model.optimizer, "inner_optimizer") else None
        self._newest = by_epoch and self._length is None
        self._begin_epoch()
        self._want()

    def is_full(self, steps: int) -> bool:
        """After so many steps: might the next ones find no room?"""
        return steps + self._stride > self._last

    def taken(self, ended: tuple[int, int] | None = None) -> list[tuple[int, dict[str, Matrix]]]:
        """(step, {quantity: sums}) of the steps that are to be recorded, oldest first; from then on it fills again.

        `ended` is the last step, and the number from 1, of an epoch that has ended just now.
        """
        found = [(step, sums) for step, sums in self._ring.take() if self._is_recorded(step, ended)]
        if ended is not None:
            self._begin_epoch()
        self._want()
        return found

    def detach(self) -> None:
        """Take the ring off the optimizer."""
        self._ring.detach()

    def _is_recorded(self, step: int, ended: tuple[int, int] | None) -> bool:
        if self._schedule.asked is not None:
            return self._schedule.records(step + self._offset)
        if ended is not None and ended[0] == step and self._schedule.records_epoch(ended[1]):
            return True
        return self._schedule.is_due(step + self._offset)

    def _begin_epoch(self) -> None:
        """Where the epoch that begins now will end, if that is known and asked for."""
        self._end = [] if self._length is None else [self._ring.after(self._length)]

    def _want(self) -> None:
        now, room = self._ring.step, self._depth - len(self._end)
        coming = range(now + 1, now + 1 + REACH)
        due: list[int] = []
        for step in coming:
            if self._schedule.is_due(step + self._offset):
                due.append(step)
            if len(due) >= room:
                break
        self._ring.want([*due, *self._end], newest=self._newest)
        self._last = due[-1] if len(due) >= room else coming[-1]
