"""The running recorder, as far as it needs no framework: its file, its steps, its words, its end."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from normkit import diagnose
from normkit.errors import ArgumentError, StateError
from normkit.readers.recording import load
from normkit.recording.about import common_meta, now, warn_once
from normkit.recording.checks import check_what, plain_scalar
from normkit.recording.packet import Packet
from normkit.recording.schedule import Schedule
from normkit.store.paths import new_path, shown
from normkit.store.writer import Writer
from normkit.types import Finding, Param, When


class Recorder:
    """Writes the norms of a training run into one file; what the doors' `record` return.

    Use it as a context manager, or call `close()`; at interpreter exit it closes itself. Nothing that goes wrong in
    it after its start reaches the training: it says so once and stops.

    path      the file, or None where nothing is recorded (ranks other than 0)
    steps     optimizer steps counted so far
    records   steps recorded so far, step 0 among them
    findings  what was found, after `close()`
    """

    def __init__(
        self,
        *,
        to: str | Path | None,
        every: When,
        overhead: float,
        what: Sequence[str],
        quiet: bool,
        enabled: bool = True,
    ) -> None:
        self.schedule = Schedule(every, overhead=overhead)
        self.what = check_what(what)
        self.path: Path | None = None
        self.steps = 0
        self.findings: list[Finding] = []
        self.records = 0
        self.tensors = 0
        self.broken: str | None = None
        self._quiet = quiet
        self._epoch: int | None = None
        self._writer: Writer | None = None
        self._layout = self._last_step = -1
        self._pending: deque[Packet] = deque()
        self._newest: Packet | None = None
        self._held: Packet | None = None
        self._logged: tuple[int, dict[str, Any]] = (-1, {})
        self._pid = os.getpid()
        if enabled:
            self.path, wanted = new_path(to)
            if self.path != wanted:
                self._say(f"{shown(wanted)} exists and is kept; recording to {shown(self.path)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None or issubclass(kind, GeneratorExit):
            self.close()
        else:
            self.close(end="interrupted" if issubclass(kind, KeyboardInterrupt) else f"error: {kind.__name__}")

    def __del__(self) -> None:
        """Nobody holds the recorder, its model or its optimizer any more: finish the file, without waiting for it."""
        writer = getattr(self, "_writer", None)
        if writer is None or os.getpid() != self._pid:
            return
        with contextlib.suppress(Exception):
            self._finish_records()
            writer.update_meta(self._final_meta("dropped"))
            self._say(self.summary())
        writer.close(wait=False)

    def __repr__(self) -> str:
        state = "closed" if self._writer is None else "recording"
        return f"<{type(self).__name__} {state} {self.path}, step {self.steps}, {self.records} records>"

    @property
    def closed(self) -> bool:
        """True after `close()`, on ranks that record nothing, and after a failure."""
        return self._writer is None

    def epoch(self) -> None:
        """Say that an epoch ended; with `every=Every(epochs=n)` each n-th is recorded now."""
        self._epoch = (self._epoch or 0) + 1
        if self._writer is not None and self.schedule.records_epoch(self._epoch):
            with self._guard():
                self._record_weights()

    def log(self, **scalars: Any) -> None:
        """Store numbers (loss=..., accuracy=...) with the record of the step just made; no device is waited for.

        Call it after the step. Steps that are not recorded store none. A value that is not one number is left out,
        with a warning.
        """
        if self._writer is None:
            return
        kept = {**self._logged[1]} if self._logged[0] == self.steps else {}
        self._logged = (self.steps, kept | {name: self._kept(value) for name, value in scalars.items()})
        if self._newest is not None and self._newest.step == self.steps:
            with self._guard():
                self._attach(self._newest, scalars)

    def _finish_records(self) -> None:
        if not (self._newest is not None and self._newest.step == self.steps and self._complete()):
            self._record_weights()
        self._release()
        self._drain(wait=True)
        self.steps -= self._skipped()

    def close(self, end: str = "finished") -> None:
        """Record the last step, finish the file, say what was found. Closing twice does nothing."""
        writer = self._writer
        if writer is None:
            return
        if os.getpid() != self._pid:
            return
        with self._guard():
            self._finish_records()
        self._detach()
        self._writer = None
        writer.update_meta(self._final_meta(end))
        try:
            writer.flush()
            self.findings = diagnose.findings(load(writer.path))
            writer.findings(self.findings)
        except Exception as error:
            self._say(f"no findings ({type(error).__name__}: {error}); the records are there")
        writer.close()
        if writer.error:
            self.broken = self.broken or writer.error
        self._say_end()

    # -- for the doors -------------------------------------------------------------------------------------------

    def _open(self, params: Sequence[Param], meta: Mapping[str, Any]) -> None:
        if self.path is None:
            raise StateError("a recorder that is not enabled has no file to open")
        self._writer = Writer(self.path, {**common_meta(), "what": list(self.what), **meta})
        self._set_params(params)
        atexit.register(_close_at_exit, weakref.ref(self))
        self._say(f"recording {self.tensors} tensors to {shown(self.path)} ({self.schedule.text()})")

    def _set_params(self, params: Sequence[Param]) -> None:
        if self._writer is not None:
            self._layout = self._writer.layout(params)
            self.tensors = len(params)

    def _emit(self, packet: Packet, *, hold: bool = False) -> None:
        """Take a record; it is written as soon as all of it has arrived. One that may grow is held until `_release`."""
        packet.epoch = self._epoch
        self._newest = self._held = packet
        if self._logged[0] == self.steps:
            self._attach(packet, self._logged[1])
        if not hold:
            self._release()

    def _release(self) -> None:
        if self._held is not None:
            self._pending.append(self._held)
            self._held = None
            self._drain()

    def _drain(self, *, wait: bool = False) -> None:
        while self._writer is not None and self._pending and (wait or self._pending[0].ready()):
            packet = self._pending.popleft()
            reading = packet.reading()
            if reading is not None:
                packet.seq = self._writer.put(reading)
                self.records += reading.step != self._last_step
                self._last_step = reading.step

    def _attach(self, packet: Packet, scalars: Mapping[str, Any]) -> None:
        numbers, lates = self._scalars(scalars)
        if packet.seq is None:
            packet.scalars.update(numbers)
            packet.late_scalars.update(lates)
        elif self._writer is not None:
            numbers.update({name: float(late.wait()[0].reshape(-1)[0]) for name, late in lates.items()})
            self._writer.amend(packet.seq, numbers)

    def _scalars(self, scalars: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Those that are here as floats, those still on a device as Lates; what is no number is said and left out."""
        numbers: dict[str, float] = {}
        lates: dict[str, Any] = {}
        for name, value in scalars.items():
            try:
                number = self._scalar(name, value)
            except ArgumentError as error:
                warn_once(f"{error}; it is not recorded")
                continue
            (numbers if isinstance(number, float) else lates)[name] = number
        return numbers, lates

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Let no failure through to the training: say it once, stop recording, keep what is written."""
        try:
            yield
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        writer, self._writer = self._writer, None
        self.broken = f"{type(error).__name__}: {error}"
        self._detach()
        self._pending.clear()
        self._held = None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.update_meta({**self._final_meta("stopped"), "error": self.broken})
            with contextlib.suppress(Exception):
                writer.close()
        warn_once(
            f"normkit stopped recording at step {self.steps} ({self.broken}); training goes on, "
            f"and {shown(self.path or '')} keeps the records made so far"
        )

    def _final_meta(self, end: str) -> dict[str, Any]:
        return {
            "finished": now(),
            "end": end,
            "steps": self.steps,
            "records": self.records,
            "every": self.schedule.text(),
            "overhead": self.schedule.overhead,
            "passed_over": self.schedule.passed_over,
        }

    def _say_end(self) -> None:
        self._say(self.summary())
        if not self._quiet and self.findings:
            print(diagnose.text(self.findings), file=sys.stderr)

    def summary(self) -> str:
        """The line said at the end: how much was recorded, and where."""
        steps = max(self.records - 1, 0)  # step 0 is a record, and no step
        where = "no file" if self.path is None else shown(self.path)
        line = f"recorded {steps} of {self.steps} steps x {self.tensors} tensors in {where}"
        if self.schedule.passed_over:
            line += f" (stretched to stay under {100 * self.schedule.overhead:g} % of the time)"
        return line if self.broken is None else f"{line}; stopped early: {self.broken}"

    def _say(self, line: str) -> None:
        if not self._quiet:
            with contextlib.suppress(OSError, ValueError):
                print(f"normkit: {line}", file=sys.stderr)

    # -- what a door gives -----------------------------------------------------------------------------------------

    def _record_weights(self) -> None:
        """Record the weights as they are now."""
        raise NotImplementedError

    def _detach(self) -> None:
        """Take the hooks away."""
        raise NotImplementedError

    def _complete(self) -> bool:
        """Does the newest record show the weights as they are now?"""
        return True

    def _skipped(self) -> int:
        """How many of the counted steps a gradient scaler turned out to have skipped."""
        return 0

    def _kept(self, value: Any) -> Any:
        """A logged value in a form that keeps nothing else alive."""
        return value

    def _scalar(self, name: str, value: Any) -> Any:
        """A float, or a Late of one number."""
        return plain_scalar(name, value)


def _close_at_exit(recorder: weakref.ref[Recorder]) -> None:
    if (alive := recorder()) is not None:
        alive.close(end="interpreter exit")
