"""Records on their way into the file: some wait for a device, and the newest may still grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from normkit.recording.figures import Members
from normkit.recording.packet import Packet
from normkit.store.writer import Writer
from normkit.types import Reading


class Inbox:
    """Takes packets in the order of their steps and writes each as soon as all of it has arrived.

    newest    the packet that came last, written or not
    held      the newest, as long as it may grow: `release` lets it go
    finished  the reading that was written last, and its columns
    records   steps written so far

    `also` gets each reading that is written, and its columns; `described` says which these are, by layout.
    """

    def __init__(self, also: Callable[[Reading, Members], object] | None = None) -> None:
        self.newest: Packet | None = None
        self.held: Packet | None = None
        self.finished: tuple[Reading, Members] | None = None
        self.described: dict[int, Members] = {}
        self.records = 0
        self._also = also
        self._waiting: deque[Packet] = deque()

    def take(self, packet: Packet) -> None:
        """A new record, held until `release`."""
        self.newest = self.held = packet

    def put(self, reading: Reading, writer: Writer) -> None:
        """Write a record that is whole; more scalars may come to it."""
        seq = self._put(reading, writer)
        self.newest = Packet(reading.step, reading.layout, 0, reading.wall, [], seq=seq)

    def release(self, writer: Writer | None) -> None:
        """Nothing more belongs to the newest record."""
        if self.held is not None:
            self._waiting.append(self.held)
            self.held = None
            self.drain(writer)

    def drain(self, writer: Writer | None, *, wait: bool = False) -> None:
        """Write what has arrived; with `wait` all of it."""
        while writer is not None and self._waiting and (wait or self._waiting[0].ready()):
            packet = self._waiting.popleft()
            reading = packet.reading()
            if reading is not None:
                packet.seq = self._put(reading, writer)

    def _put(self, reading: Reading, writer: Writer) -> int:
        self.records += self.finished is None or reading.step != self.finished[0].step
        self.finished = reading, self.described[reading.layout]
        if self._also is not None:
            self._also(*self.finished)
        return writer.put(reading)

    def clear(self) -> None:
        """Forget what waits."""
        self.held = None
        self._waiting.clear()
