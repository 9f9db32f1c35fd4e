"""The recording of one or several `fit`s of a Keras model, as far as no callback is needed for it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from normkit.keras.again import Weakly, alike, note_left
from normkit.keras.columns import Columns, Here
from normkit.keras.count import Count, others_train
from normkit.keras.describe import described, numbers_of, path_of_sums
from normkit.keras.gather import Gather
from normkit.keras.rates import Rates
from normkit.keras.walk import Located, chosen, walk
from normkit.ops import ops_of
from normkit.recording.checks import plain_scalar
from normkit.recording.figures import figures
from normkit.recording.grouped import described_groups, grouped
from normkit.recording.packet import Packet, Piece
from normkit.recording.recorder import Recorder
from normkit.recording.scalars import sorted_out
from normkit.types import SUMS, Param


class KerasRecorder(Recorder):
    """A recording under way; made by a `RecordNorms` when training begins."""

    _view: keras.callbacks.Callback | None = None  # gives the model with its state attached, whatever the backend
    _gather: Gather | None = None
    _rates: Rates | None = None
    _count = Count(None, None)
    _waits, _started = False, False  # for the first step of this `fit`; has there been one of any?
    of = Weakly()  # the model

    def start(
        self, model: Any, params: Mapping[str, Any] | None, rule: Any, earlier: KerasRecorder | None = None
    ) -> None:
        """Open the file of a `fit`: a new one, or that of the `earlier` recorder, which is of the same model."""
        if self.path is None:
            return
        self._rule = rule
        if earlier is not None:
            self._names, self._count = earlier._names, earlier._count
        try:
            self._look_at(model, params, again=earlier is not None)
            self._open(self._params, self._meta(), described_groups(self._params, self._groups))
        except BaseException:
            self._give_up()
            self._let_go()
            raise
        self._say("" if self._params else "nothing of this model is trainable; select='all' records all of it")

    def begin(self, batch: int = 0) -> None:
        """The first step of a `fit` is next: other callbacks may have restored weights and optimizer since it began."""
        if self._writer is None or not self._waits:
            return
        with self._guard():
            self._stand(batch)
            self._watch()

    def _stand(self, batch: int = 0) -> None:
        """Which step is it? The first time record the weights, too, as training finds them."""
        self._waits = False
        self._count = Count(self.model, self._given, batch=batch, earlier=self._count)
        if not self._started:
            self._started = True
            if not self._settle():
                self.steps = self._first = self.steps or self._count.asked(self.model)
                self._record_weights()
            self.schedule.start()
        self._offset = self.steps - self._count.asked(self.model)  # the optimizer's count begins anew at `compile`

    def go_on(self, model: Any, params: Mapping[str, Any] | None) -> None:
        """Another `fit` of the same model, in the same recording."""
        if self._writer is None:
            return
        with self._guard():
            before = self._params
            self._look_at(model, params, again=True)
            if self._params != before:
                self._set_params(self._params, described_groups(self._params, self._groups))
                self._writer.event("parameters", f"from here on {self.tensors} tensors are recorded", step=self.steps)

    def _look_at(self, model: Any, params: Mapping[str, Any] | None, *, again: bool = False) -> None:
        """Which tensors there are, which of them are recorded, and where the optimizer stands."""
        self._view = keras.callbacks.Callback()
        self._view.set_model(model)
        self.of, self._given, self._waits = Weakly(model), dict(params or {}), True
        if self._rates is not None:
            self._rates.detach()
        self._rates, self._others = Rates(self.model), others_train(self.model)
        everything = walk(self.model)
        names = {*chosen(everything, self._rule, again=again), *self._names}  # what was recorded goes on, even frozen
        self._everything = everything
        self._located: list[Located] = [item for item in everything if item.param.name in names]
        self._params: list[Param] = [item.param for item in self._located]
        self._groups = grouped(self._params, self._terms.per, again=again)
        self._variables = Columns(self._located, self._groups)

    def _watch(self) -> None:
        """From here on gradients are gathered."""
        idle = self._count.idle and self.model.optimizer is not None
        if len(self.what) > 1 and not idle:
            length = self._given.get("steps")
            self._gather = Gather(
                self.model, self._located, self.what, self.schedule, length=length, offset=self._offset
            )

    @property
    def model(self) -> Any:
        """The model in training, its state attached to it; None when nothing trains."""
        return None if self._view is None else self._view.model

    # -- while a model trains --------------------------------------------------------------------------------------

    def before_batch(self, batch: int) -> None:
        """Batch number `batch` of this epoch is about to begin: the weights are those of the step before it."""
        if self._waits:
            self.begin(batch)
        if self._writer is None or self._view is None:
            return
        with self._guard():
            steps = self._count.before(batch, lambda: self.model) + self._offset
            if self._gather is not None:
                if self._gather.is_full(steps - self._offset):
                    self._empty(self._gather)
                self.steps = steps
            elif self._reach(steps):
                with self.schedule.clock():
                    self._record_weights()

    def end_epoch(self, epoch: int, logs: Mapping[str, Any] | None) -> None:
        """An epoch has ended: its numbers belong to its last step."""
        self.begin()
        if self._writer is None or self._view is None:
            return
        with self._guard():
            steps = self._ended()
            numbers = numbers_of(logs)
            if self._epoch is None and epoch:
                self._epoch = epoch  # a run that goes on by `initial_epoch`
            due = self._gather is None and self._reach(steps)
            self.steps = steps
            self.log(**numbers)
            if self._gather is None or self._empty(self._gather, ends=steps):
                self.epoch()
            if due:
                self._record_weights()

    def _ended(self) -> int:
        """The step that an epoch ended with; an optimizer that has made none in the first one is no longer watched."""
        idle = self._count.idle
        steps = self._count.ended(self.model) + self._offset
        if self._count.idle and not idle and self._writer is not None:
            self._stop_gathering()
            text = self._count.idleness(self.model)
            text += "; gradients and updates are not recorded" if len(self.what) > 1 else ""
            self._writer.update_meta(described(self.model, self._everything, idle=True))
            self._writer.event("optimizer", text, step=steps)
            self._say(text)
        return steps

    def figures_now(self) -> dict[str, float]:
        """The figures of the step just made: of its record, or else of the weights as they are."""
        if self._writer is None or self._view is None:
            return {}
        with self._guard():
            newest = self._inbox.newest
            if newest is not None and (newest.step, newest.layout) == (self.steps, self._layout):
                return self.figures(wait=True)
            present = self._present().reading()
            return {} if present is None else figures(present, self._inbox.described[self._layout])
        return {}

    def end_fit(self) -> None:
        """Training is over, and the recording stays open: the weights as they are left."""
        if self._writer is not None:
            with self._guard():
                self._finish_records()
            self._let_go()

    def abandon(self) -> None:
        """Training broke off some time ago, and the weights may be others by now: keep what is recorded."""
        if self._gather is not None:
            with self._guard():
                self._empty(self._gather)
        self._let_go()
        self.close(end="interrupted")

    def _reach(self, steps: int) -> bool:
        """Go on to `steps`: is one of those made since then to be recorded?"""
        made = range(self.steps + 1, steps + 1)
        self.steps = steps
        return any(self.schedule.records(step) for step in made)

    def _empty(self, gather: Gather, *, ends: int | None = None) -> bool:
        """Emit what the training step itself has kept. The epoch `ends` with a step: is its record still to come?"""
        self.model  # noqa: B018  the ring's variables are state, too
        held = self.steps
        columns = np.arange(len(self._params))
        for step, values in gather.taken(None if ends is None else (ends - self._offset, (self._epoch or 0) + 1)):
            self.steps = step + self._offset
            pieces = [Piece(Here((matrix,)), columns, (quantity,)) for quantity, matrix in values.items()]
            if self.steps == ends:
                self._epoch, ends = (self._epoch or 0) + 1, None
            self._emit(self._packet(pieces, step * self._count.per_step))
        self.steps = held
        return ends is not None

    # -- what the recorder asks for --------------------------------------------------------------------------------

    def _record_weights(self) -> None:
        """The weights now; what the newest record says of this same step besides is kept."""
        packet = self._present()
        newest = self._inbox.newest
        if newest is not None and newest.step == self.steps and newest.layout == self._layout:
            packet.pieces = [*newest.pieces, *packet.pieces]
            packet.scalars = dict(newest.scalars) | packet.scalars
        self._emit(packet)

    def _present(self) -> Packet:
        self.model  # noqa: B018  attaches the weights
        return self._packet(self._variables.measure(), self._count.round)

    def _packet(self, pieces: Sequence[Piece], round_: int) -> Packet:
        packet = Packet(self.steps, self._layout, self._columns, time.time(), pieces)
        rates = self._rates if self._others or self._count.trains else None
        packet.scalars, packet.late_scalars = sorted_out({} if rates is None else rates.at(round_), self._scalar)
        return packet

    def _counted(self) -> int | None:
        """Steps of the optimizer's own count: a first attempt begins with it, so it has nothing to subtract."""
        return None if self._past is None else self._count.asked(self.model) or None

    def _complete(self) -> bool:
        """Does the newest record hold the weights? Where they have changed since without a step, that is noted."""
        self._inbox.release(self._writer)
        self._inbox.drain(self._writer, wait=True)
        finished, present = self._inbox.finished, self._present().reading()
        if finished is None or present is None or "weight" not in (values := finished[0].values):
            return False
        if finished[0].layout != self._layout:
            return False
        then, now = values["weight"], present.values["weight"]
        there = ~np.isnan(then[SUMS.index("zeros")])
        if alike(then[:, there], now[:, there]):
            return bool(there.all())
        if self._writer is not None:
            note_left(self._writer, self.steps, dict(zip(self._names, now.T, strict=False)))
        return True

    def _finish_records(self) -> None:
        if self._view is not None:
            if self._waits:
                self._stand()
            if self._gather is not None:
                self._empty(self._gather)
            self.steps = self._count.asked(self.model) + self._offset
            super()._finish_records()
        self._inbox.release(self._writer)
        self._inbox.drain(self._writer, wait=True)

    def _detach(self) -> None:
        if self._rates is not None:
            self._rates.detach()
        self._stop_gathering()

    def _stop_gathering(self) -> None:
        gather, self._gather = self._gather, None
        if gather is not None:
            gather.detach()

    def close(self, end: str = "finished") -> None:
        super().close(end)
        if self._writer is None:
            self._let_go()

    def _let_go(self) -> None:
        """Keep no model alive."""
        self._detach()
        self._waits = False
        self._view, self._everything, self._located, self._variables = None, [], [], Columns([])

    def _scalar(self, name: str, value: Any) -> Any:
        if isinstance(value, bool | int | float | np.generic | np.ndarray) or not hasattr(value, "dtype"):
            return plain_scalar(name, value)
        return ops_of(value).sums([value])  # the sum of one number is that number, and on its way

    def _meta(self) -> dict[str, Any]:
        return {
            **described(self.model, self._everything, idle=Count(self.model, None, earlier=self._count).idle),
            "every": self.schedule.text(),
            "overhead": self.schedule.overhead,
            "path_of_sums": path_of_sums(self._variables.values()),
        }
