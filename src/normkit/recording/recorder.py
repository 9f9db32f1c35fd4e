"""The running recorder, as far as it needs no framework: its file, its steps, its words, its end."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from normkit import diagnose
from normkit.errors import StateError
from normkit.readers.recording import load
from normkit.recording import account
from normkit.recording.about import common_meta, warn_once
from normkit.recording.door import Door
from normkit.recording.ending import close_at_exit, words_for
from normkit.recording.figures import Looks, Members, figures
from normkit.recording.inbox import Inbox
from normkit.recording.opening import open_writer, place, too_small
from normkit.recording.outlets import Outlets
from normkit.recording.packet import Packet
from normkit.recording.past import Past
from normkit.recording.scalars import attach, sorted_out
from normkit.recording.search import this_process
from normkit.recording.terms import Terms
from normkit.store.writer import Writer
from normkit.types import Finding, Param

ENDS = 100  # of epochs, that the file remembers
Groups = Sequence[tuple[Param, str, int]]  # tensor, per, and how many groups of it have columns of their own


class Recorder(Door):
    """Writes the norms of a training run into one file; what the doors' `record` return.

    Use it as a context manager, or call `close()`; at interpreter exit it closes itself. Nothing that goes wrong in it
    after its start reaches the training: it says so once and stops.

    path      the file, or None where nothing is recorded (ranks other than 0)
    steps     optimizer steps counted so far
    findings  what was found, after `close()`
    """

    def __init__(self, terms: Terms, *, enabled: bool = True) -> None:
        self.schedule = terms.schedule()
        self.what = terms.what
        self._terms = terms
        self.path: Path | None = None
        self.steps = 0
        self.findings: list[Finding] = []
        self.broken: str | None = None
        self._epoch: int | None = None
        self._ends: list[list[int]] = []  # [step, number] of the last epochs that ended, for a resumed run
        self._writer: Writer | None = None
        self._outlets = Outlets(terms if enabled else None)
        self._inbox = Inbox(self._outlets.take)
        self._layout, self._columns = -1, 0  # of the newest layout: its number, how many columns
        self._logged: tuple[int, dict[str, Any]] = (-1, {})
        self._pid = os.getpid()
        self._names: list[str] = []
        self._looks, self._diagnosed = Looks(), False
        self._settled, self._first = False, 0  # is the step known at which this attempt began, and which is it
        self._past: Past | None = None
        if enabled:
            self._past, self.path, remark = place(terms)
            self._say(remark)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close(end=words_for(None if isinstance(error, GeneratorExit) else error))

    def __del__(self) -> None:
        """Nobody holds the recorder, its model or its optimizer any more: finish the file, without waiting for it."""
        writer = getattr(self, "_writer", None)
        if writer is None or os.getpid() != self._pid:
            return
        with contextlib.suppress(Exception):
            self._finish_records()
            writer.update_meta(account.final_meta(self, "dropped"))
            self._own_up(writer)
            self._say(account.summary(self))
        self._outlets.close(wait=False)
        writer.close(wait=False)

    def __repr__(self) -> str:
        state = "closed" if self._writer is None else "recording"
        return f"<{type(self).__name__} {state} {self.path}, step {self.steps}, {self.records} records>"

    @property
    def closed(self) -> bool:
        """True after `close()`, on ranks that record nothing, and after a failure."""
        return self._writer is None

    @property
    def records(self) -> int:
        """Steps recorded so far, step 0 and those of earlier attempts among them."""
        return self._inbox.records

    @property
    def tensors(self) -> int:
        """How many tensors a record holds."""
        return len(self._names)

    def epoch(self) -> None:
        """Say that an epoch ended; with `every=Every(epochs=n)` each n-th is recorded now."""
        self._epoch = (self._epoch or 0) + 1
        if self._writer is None:
            return
        with self._guard():
            if self._settled:
                self._ends = [*self._ends, [self.steps - self._skipped(), self._epoch]][-ENDS:]
                self._writer.update_meta({"epoch_ends": self._ends})
            if self.schedule.records_epoch(self._epoch):
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
        newest = self._inbox.newest
        if newest is not None and newest.step == self.steps:
            with self._guard():
                self._attach(newest, scalars)

    def figures(self, *, wait: bool = False, findings: bool = False) -> dict[str, float]:
        """About ten numbers of the newest finished record, for a chart beside the loss; `recording.figures` names them.

        Only what that record has is there; before the first one is finished the dict is empty. Records may wait for a
        device: `wait=True` waits, too. The number of findings is known after `close()`; with `findings=True` the file
        is looked at before that every now and then, in at most 1 % of the time.
        """
        if self._writer is not None:
            with self._guard():
                self._inbox.drain(self._writer, wait=wait)
        newest = self._inbox.finished
        found = {} if newest is None else figures(*newest)
        if found and findings and not self.closed and self.path is not None:
            return found | self._looks.count(self.path)
        return found | ({"findings": float(len(self.findings))} if found and self._diagnosed else {})

    def _finish_records(self) -> None:
        self._settle()
        newest = self._inbox.newest
        if not (newest is not None and newest.step == self.steps and self._complete()):
            self._record_weights()
        self._inbox.release(self._writer)
        self._inbox.drain(self._writer, wait=True)
        self.steps -= self._skipped()

    def close(self, end: str = "finished") -> None:
        """Record the last step, finish the file, say what was found. Closing twice does nothing."""
        writer = self._writer
        if writer is None or os.getpid() != self._pid:
            return
        with self._guard():
            self._finish_records()
        self._detach()
        self._writer = None
        self._outlets.close()
        writer.update_meta(account.final_meta(self, end))
        try:
            writer.flush()
            writer.update_meta({"dropped": writer.dropped} if writer.dropped else {})
            self.findings = diagnose.findings(load(writer.path))
            writer.findings(self.findings)
            self._diagnosed = True
        except Exception as error:
            self._say(f"no findings ({type(error).__name__}: {error})")
        writer.close()
        self._own_up(writer)
        self._say_end()

    # -- for the doors -------------------------------------------------------------------------------------------

    def _open(self, params: Sequence[Param], meta: Mapping[str, Any], groups: Groups = ()) -> None:
        if self.path is None:
            raise StateError("a recorder that is not enabled has no file to open")
        whole = {**common_meta(), **this_process(), "what": list(self.what), **meta}
        self._writer, self._past = open_writer(self._terms, self._past, self.path, whole, [p.name for p in params])
        self.path = self._writer.path
        self._set_params(params, groups)
        self._say(account.beginning(self, self._writer.attempt + 1))
        self._say(too_small(self._terms.bytes, self._columns))
        self._writer.update_meta(self._outlets.open(params, self._past.meta if self._past else {}, self._say))
        atexit.register(close_at_exit, weakref.ref(self))  # last: what is registered later is closed earlier

    def _settle(self) -> bool:
        """Just before the first step: which one is it? True where its record is written already, in a resumed run."""
        if self._settled or self._writer is None:
            return False
        self._settled, counted = True, self._counted()
        present = None if self._past is None else self._present().reading()
        if self._past is None or present is None:
            self._writer.update_meta({"counted_before": counted} if counted else {})
            return False
        start = self._past.settle(self._writer, present, self._names, told=self._terms.step, counted=counted)
        self.steps = self._first = start.step
        if self._epoch is None:  # nobody has told
            self._epoch = self._past.epoch(start.step)
        self._ends, self._inbox.records = self._past.ends(start.step), self._past.before(start.step)
        self._writer.update_meta({"epoch_ends": self._ends})
        self._say(f"goes on at step {start.step:,}, {start.known}")
        if start.record is None or self._columns > len(self._names):
            return False
        self._inbox.put(self._past.placed(start.record, self._names, self._layout), self._writer)
        return True

    def _set_params(self, params: Sequence[Param], groups: Groups = ()) -> None:
        if self._writer is not None:
            self._layout = self._writer.layout(params, groups)
            self._columns = len(params) + sum(count for *_, count in groups)
            self._names = [param.name for param in params]
            self._inbox.described[self._layout] = Members(params)

    def _emit(self, packet: Packet, *, hold: bool = False) -> None:
        """Take a record; it is written as soon as all of it has arrived. One that may grow is held."""
        packet.epoch = self._epoch
        self._inbox.take(packet)
        if self._logged[0] == self.steps:
            self._attach(packet, self._logged[1])
        if not hold:
            self._inbox.release(self._writer)

    def _attach(self, packet: Packet, scalars: Mapping[str, Any]) -> None:
        late = attach(packet, *sorted_out(scalars, self._scalar))
        if late and packet.seq is not None and self._writer is not None:
            self._writer.amend(packet.seq, late)
            self._outlets.amend(packet.step, late)

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
        self._inbox.clear()
        self._outlets.close(wait=False)
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.update_meta({**account.final_meta(self, "stopped"), "error": self.broken})
            with contextlib.suppress(Exception):
                writer.close()
        warn_once(account.failure(self))

    def _give_up(self) -> None:
        """The start failed: leave no empty file behind."""
        self._detach()
        self._outlets.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self.path is not None and self._past is None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def _own_up(self, writer: Writer) -> None:
        """Where the disk failed, only what can be read was recorded."""
        if writer.error:
            self.broken, self._inbox.records = self.broken or writer.error, account.readable(writer.path)

    def _say_end(self) -> None:
        self._say(account.summary(self))
        if not self._terms.quiet and self.findings:
            print(diagnose.text(self.findings), file=sys.stderr)

    def _say(self, line: str) -> None:
        if line and not self._terms.quiet:
            with contextlib.suppress(OSError, ValueError):
                print(f"normkit: {line}", file=sys.stderr)
