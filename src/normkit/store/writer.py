"""Writes a recording from a thread of its own, so that the disk never makes the training wait or fail.

The caller's thread only packs and queues. The writer's thread gathers for a quarter of a second and commits; the file
is in WAL mode meanwhile, so that others read it live and a killed process loses less than a second. A batch that
cannot be written is kept and tried again, within the queue's bounds; what does not fit is dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from normkit.store import jobs
from normkit.store.keeper import BATCH_BYTES, Keeper, LostError
from normkit.store.promise import Promise, promised
from normkit.store.retention import BUDGET
from normkit.types import Finding, Param, Reading

HOLD = 0.25  # seconds for which the newest row waits for its scalars, and for which a batch gathers
RETRY = 1.0  # seconds between attempts after a failure
PATIENCE = 3.0  # seconds that a full queue may hold up the caller, once
CLOSING = 60.0  # seconds that close() waits for the disk
QUEUE_BYTES = 64 << 20


class Writer:
    """The one object that writes a recording.

    Raises FileError when the file cannot be begun, and nothing after that: a later error is kept in `error`, said once
    as a RuntimeWarning, and training goes on. `dropped` counts the records that were lost. A forked child's calls do
    nothing: the file belongs to the process that began it.

    With `resume` it goes on with the recording at `path`, as a further `attempt`, unless another writer than the one
    known by its `claim` (in the metadata) was there meanwhile. `budget` is the size in bytes that
    the file is kept under by thinning old records (`retention`); None is no limit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        meta: Mapping[str, Any],
        *,
        resume: bool = False,
        claim: str | None = None,
        budget: int | None = BUDGET,
    ) -> None:
        self.path = Path(path)
        self.dropped = 0
        self._promise = Promise(self.path)
        self._tensors: dict[Param, int] = {}
        self._layouts: dict[tuple[jobs.Column, ...], int] = {}
        self._widths: dict[int, int] = {}
        self._held: jobs.Row | None = None
        self._queue: deque[jobs.Job] = deque()
        self._bytes = self._gathered = 0  # queued or being written, and of these in the batch
        self._failing = self._idle = False
        self._asked = self._serving = self._answered = 0  # calls of flush()
        self._closing = False
        lock = threading.RLock()  # re-entrant: a garbage collection inside a call may close another recorder
        self._ready = threading.Condition(lock)  # the thread waits here for work,
        self._room = threading.Condition(lock)  # the caller for space
        self._keeper = Keeper(self.path, meta, resume=resume, budget=budget, claim=claim)
        self._seq, self.attempt, self._new_tensor, self._new_layout = self._keeper.next_numbers
        self._thread = threading.Thread(target=self._serve, name="normkit writer", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def error(self) -> str | None:
        """What went wrong first; None as long as all is well."""
        return self._promise.error

    # the caller's side

    @promised
    def layout(self, params: Sequence[Param], groups: Sequence[tuple[Param, str, int]] = ()) -> int:
        """The number of this ordered list of columns; the same list has the same number.

        First the tensors; then, for each (param, per, count) in `groups`, one for each index of its "out" or "in" axes.
        """
        of_groups = [(param, group, per) for param, per, count in groups for group in range(count)]
        key: tuple[jobs.Column, ...] = (*((param, None, None) for param in params), *of_groups)
        if key not in self._layouts:
            number = self._layouts[key] = self._new_layout + len(self._layouts)
            self._widths[number] = len(key)
            new = [param for param in dict.fromkeys(param for param, *_ in key) if param not in self._tensors]
            for param in new:
                self._tensors[param] = self._new_tensor + len(self._tensors)
            self._add(jobs.Insert(jobs.TENSOR, [jobs.tensor_row(self._tensors[param], param) for param in new]))
            rows = [(number, place, self._tensors[param], *rest) for place, (param, *rest) in enumerate(key)]
            self._add(jobs.Insert(jobs.LAYOUT, rows, width=len(key)))
        return self._layouts[key]

    @promised
    def put(self, reading: Reading) -> int:
        """Queue one record, copied; returns its seq, for `amend`."""
        with self._ready:
            seq = self._seq
            self._seq += 1
            width = self._widths[reading.layout]
            row = jobs.row(seq, reading, width, attempt=self.attempt, now=time.monotonic())
            if not self._wait_for_room(row.size):
                self.dropped += 1
                return seq
            if self._held is not None:
                self._queue.append(self._held)
            self._held = row
            self._bytes += row.size
            self._wake()
        return seq

    @promised
    def amend(self, seq: int, scalars: Mapping[str, float]) -> int:
        """Add scalars to a record that was put: free while it waits, an UPDATE later."""
        numbers = jobs.numbers(scalars)
        with self._ready:
            if self._held is not None and self._held.seq == seq:
                self._held.scalars |= numbers
            else:
                self._add(jobs.Amend(seq, numbers))
        return seq

    @promised
    def event(self, kind: str, text: str, step: int | None = None, tensor: str | None = None) -> int:
        """Note what happened in mid-run."""
        return self._add(jobs.Insert(jobs.EVENT, [jobs.event_row(time.time(), kind, text, step, tensor)]))

    @promised
    def findings(self, findings: Sequence[Finding]) -> int:
        """Store what was found; an empty list says that nothing was."""
        self._add(jobs.Insert(jobs.FINDING, [jobs.finding_row(finding) for finding in findings]))
        return self._add(jobs.Insert(jobs.META, jobs.meta_rows({"findings": len(findings)})))

    @promised
    def update_meta(self, meta: Mapping[str, Any]) -> int:
        """Set some keys of the run's metadata."""
        return self._add(jobs.Insert(jobs.META, jobs.meta_rows(meta)))

    @promised
    def flush(self) -> int:
        """Wait until all that was given so far can be read by others; -1 where the disk refuses it."""
        with self._ready:
            self._asked += 1
            asked = self._asked
            self._ready.notify()
            self._room.wait_for(lambda: self._answered >= asked, CLOSING)
        return -1 if self._answered < asked or self._failing else 0

    def close(self, *, wait: bool = True) -> None:
        """Write what is queued and fold the WAL, so that the file opens on a read-only mount; again does nothing.
        With `wait=False` the thread is left to do so by itself; interpreter exit waits for it.
        """
        if self._promise.inherited:
            return
        self._promise.over = True
        with self._ready:
            self._closing = True
            self._ready.notify()
            self._room.notify_all()
        if not wait:
            return
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSING)
        if self._thread.is_alive():
            self._promise.broken(TimeoutError(f"the disk did not answer for {CLOSING:g} s"))
        atexit.unregister(self.close)
        self._promise.say()

    def _add(self, job: jobs.Job) -> int:
        with self._ready:
            if self._bytes + job.size > 2 * QUEUE_BYTES:  # rows stop at half of that; this is a disk gone for good
                return -1
            self._queue.append(job)
            self._bytes += job.size
            self._wake()
        return 0

    def _wake(self) -> None:
        if self._idle or self._bytes > BATCH_BYTES:
            self._ready.notify()

    def _wait_for_room(self, size: int) -> bool:
        """Wait for the disk, but only once: while it fails or after a drop the training is not held up again."""

        def fits() -> bool:
            return self._closing or self._bytes == 0 or self._bytes + size <= QUEUE_BYTES

        if fits():
            return True
        self._ready.notify()
        if self._failing or not self._room.wait_for(fits, PATIENCE):
            self._failing = True
            self._promise.broken(
                TimeoutError(f"the disk is slower than the training: {self._bytes >> 20} MB wait to be written")
            )
            return False
        return True

    # the thread's side

    def _serve(self) -> None:
        try:
            self._try(self._keeper.catch_up)
            closing = False
            while not closing:
                closing = self._gather()
                self._commit()
        except Exception as error:  # nobody waits for a thread that is gone
            self._promise.broken(error)
            self._failing = True
        with self._ready:
            left = [*self._keeper.batch, *self._queue, *([self._held] if self._held else [])]
            self.dropped += sum(isinstance(job, jobs.Row) for job in left)
            self._promise.over, self._answered = True, self._asked
            self._room.notify_all()
        self._keeper.finish()

    def _gather(self) -> bool:
        """Move what is queued into the batch; True when it is the last one."""
        with self._ready:
            while not (self._queue or self._held or self._keeper.batch or self._hurried()):
                self._idle = True
                self._ready.wait()
            self._idle = False
            deadline = time.monotonic() + (RETRY if self._failing else HOLD)
            while not self._hurried() and (left := deadline - time.monotonic()) > 0:
                if self._bytes > BATCH_BYTES and not self._keeper.batch:
                    break
                self._ready.wait(left)
            if self._held is not None and (self._hurried() or time.monotonic() - self._held.since >= HOLD):
                self._queue.append(self._held)
                self._held = None
            new = list(self._queue)
            self._queue.clear()
            self._gathered += sum(job.size for job in new)
            self._serving = self._asked
            closing = self._closing
        self._keeper.take(new, last=closing)
        if self._keeper.trouble is not None:
            self._promise.broken(self._keeper.trouble)
        return closing

    def _hurried(self) -> bool:
        return self._closing or self._asked > self._answered

    def _commit(self) -> None:
        """Write the batch; keep it where the disk may recover."""
        self._failing = not self._try(self._keeper.write)
        with self._ready:
            if not self._failing:
                self._bytes -= self._gathered
                self._gathered = 0
            self._answered = self._serving
            self._room.notify_all()

    def _try(self, work: Callable[[], None]) -> bool:
        """Do it; False where the disk did not let it be done, and may later."""
        try:
            work()
        except LostError as error:
            self._promise.broken(error)
        except (sqlite3.OperationalError, OSError) as error:
            self._promise.broken(error)
            return False
        except Exception as error:
            self._promise.broken(error)
            self.dropped += sum(isinstance(job, jobs.Row) for job in self._keeper.write_singly())
        return True
