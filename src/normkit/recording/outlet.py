"""One live sink on a thread of its own, behind a queue with bounds: the training neither waits for it nor breaks."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from normkit.norms import from_sums
from normkit.recording.about import warn_once
from normkit.recording.figures import ZEROS, Members, figures
from normkit.sinks.slices import Sink, Slice
from normkit.types import Reading

if TYPE_CHECKING:
    from normkit.types import Matrix

HOLD = 1.0  # seconds for which the newest reading waits for its scalars
QUEUE_BYTES = 64 << 20
CLOSING = 60.0  # seconds that close() waits

NOBODY = Members(())
Item = tuple[Reading, Members]


class Outlet:
    """Hands each finished reading to a sink, once nothing more comes to it: with the next one, or after a second.

    A sink that fails is said once, as a warning at the next call, and given no more; so are readings that found no room
    in the queue. A forked child's calls do nothing.
    """

    def __init__(self, name: str, sink: Sink) -> None:
        self._name, self._sink = name, sink
        self._queue: deque[Item] = deque()
        self._held: Item | None = None
        self._since = 0.0  # monotonic time at which the held one came
        self._bytes = self._dropped = 0
        self._closing = False
        self._trouble: str | None = None  # what went wrong first
        self._said = False
        self._process = os.getpid()
        self._ready = threading.Condition(threading.RLock())  # a garbage collection inside a call may close a recorder
        self._thread = threading.Thread(target=self._serve, name=f"normkit {name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def take(self, reading: Reading, members: Members) -> None:
        """A finished reading; of two of one step the later one counts."""
        if os.getpid() != self._process:
            return
        with self._ready:
            if self._held is not None and self._held[0].step != reading.step:
                self._add(self._held)
            self._held, self._since = (reading, members), time.monotonic()
            self._ready.notify()
        self._say()

    def amend(self, step: int, scalars: dict[str, float]) -> None:
        """Scalars that came after their reading."""
        if os.getpid() != self._process:
            return
        with self._ready:
            if self._held is not None and self._held[0].step == step:
                reading, members = self._held
                self._held = replace(reading, scalars={**reading.scalars, **scalars}), members
            else:
                self._add((Reading(step, -1, time.time(), {}, scalars=scalars), NOBODY))

    def close(self, *, wait: bool = True) -> None:
        """Hand over the rest and close the sink. With `wait=False` its thread is left to do so."""
        if os.getpid() != self._process:
            return
        with self._ready:
            self._closing = True
            self._ready.notify()
        if wait:
            self._thread.join(CLOSING)
            atexit.unregister(self.close)
            if self._thread.is_alive():
                self._trouble = self._trouble or f"no answer for {CLOSING:g} s"
            if self._dropped:
                self._trouble = self._trouble or f"{self._dropped} records came faster than it takes them"
            self._say()

    def _add(self, item: Item) -> None:
        size = sum(matrix.nbytes for matrix in item[0].values.values())
        if self._thread.is_alive() and (self._bytes + size <= QUEUE_BYTES or not self._bytes):
            self._queue.append(item)
            self._bytes += size
            self._ready.notify()
        else:
            self._dropped += 1

    def _say(self) -> None:
        if self._trouble is not None and not self._said:
            self._said = True
            warn_once(f"normkit could not write all to {self._name} ({self._trouble}); the recording has it")

    # the thread's side

    def _serve(self) -> None:
        try:
            while (batch := self._gathered()) is not None:
                for reading, members in batch:
                    self._sink.put(sliced(reading, members, self._sink))
                self._sink.flush()
        except Exception as error:
            self._trouble = f"{type(error).__name__}: {error}"
        try:
            self._sink.close()
        except Exception as error:
            self._trouble = self._trouble or f"{type(error).__name__}: {error}"

    def _gathered(self) -> list[Item] | None:
        """What is to be written now; None when all is."""
        with self._ready:
            while not (self._queue or self._closing or self._ripe()):
                self._ready.wait(None if self._held is None else HOLD)
            batch = list(self._queue)
            self._queue.clear()
            self._bytes = 0
            if self._held is not None and (self._closing or self._ripe()):
                batch.append(self._held)
                self._held = None
        return batch or None

    def _ripe(self) -> bool:
        return self._held is not None and time.monotonic() - self._since >= HOLD


def sliced(reading: Reading, members: Members, sink: Sink) -> Slice:
    """What the sink takes of a reading: the norms of its first columns, the rest are groups; and its figures."""
    whole: dict[str, Matrix] = {word: matrix[:, : len(members.params)] for word, matrix in reading.values.items()}
    return Slice(
        reading.step,
        reading.epoch,
        reading.wall,
        members.params,
        {
            word: {kind: from_sums(matrix, members.entries, kind) for kind in sink.norms}
            for word, matrix in whole.items()
        },
        {word: ~np.isnan(matrix[ZEROS]) for word, matrix in whole.items()},
        dict(reading.scalars),
        figures(reading, members) if sink.figures and reading.values else {},
    )
