"""Keeps one file: what is to be written, the pyramid that grows with it, and the budget that it must not outgrow."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from normkit.store import file, forks, jobs
from normkit.store.pyramid import Pyramid
from normkit.store.retention import Retention

BATCH_BYTES = 8 << 20
PASSES = 32  # of thinning after one part, at most


class Keeper:
    """The file's side of a writer; one thread calls it.

    Raises FileError when the file cannot be begun, and sqlite3's errors afterwards. What could not be written stays in
    `batch`.
    """

    def __init__(
        self, path: Path, meta: Mapping[str, object], *, resume: bool, budget: int | None, claim: str | None = None
    ) -> None:
        wal, self._at_once = file.WAL_BYTES, BATCH_BYTES
        if budget is not None:  # of a small one only a part for either
            wal, self._at_once = min(wal, budget // 16), min(self._at_once, budget // 32)
        whole = {**meta, "budget": budget}
        self._file = file.reopen(path, whole, wal, claim) if resume else file.begin(path, whole, wal)
        self._pyramid = Pyramid()
        self._retention = Retention(budget)
        self._inside = forks.guard()
        self.batch: list[jobs.Job] = []
        self.trouble: Exception | None = None  # the first thing that went wrong in the pyramid

    @property
    def next_numbers(self) -> tuple[int, int, int, int]:
        """Of a further record, attempt, tensor and layout."""
        return self._file.next_numbers

    def catch_up(self) -> None:
        """Take up the blocks that a killed writer of this file left undone."""
        with self._inside:
            self.batch += self._pyramid.resume(self._file.con)

    def take(self, new: Sequence[jobs.Job], *, last: bool) -> None:
        """Put jobs into the batch, with the blocks of the pyramid that they complete."""
        for job in new:
            if isinstance(job, jobs.Row):
                self._blocks(self._pyramid.leave, job.family)  # first: who is killed here finds only what is open
            self.batch.append(job)
            if isinstance(job, jobs.Row):
                self._blocks(self._pyramid.take, job)
            elif isinstance(job, jobs.Amend):
                self._pyramid.amend(job.seq, job.scalars)
        if last:
            self._blocks(self._pyramid.close)

    def _blocks(self, work: Callable[..., Sequence[jobs.Job]], *of: Any) -> None:
        """Add the blocks that `work` gives. The pyramid is for the eye: what goes wrong in it costs no record."""
        try:
            self.batch += work(*of)
        except Exception as error:
            self.trouble = self.trouble or error
            self._pyramid = Pyramid()

    def write(self) -> None:
        """Write the batch, each part of it in one transaction."""
        while self.batch:
            part = self._part()
            with self._inside:
                self._file.write(part)
                del self.batch[: len(part)]
                for _ in range(PASSES):
                    if not self._retention.due(self._file.con):
                        break
                    self._file.write([self._retention])
        if self._file.lost:
            raise LostError(f"{str(self._file.path)!r} was removed, or another file put in its place")

    def write_singly(self) -> list[jobs.Job]:
        """Write the batch without the jobs that cannot be written, whatever the disk does; the result is these."""
        failed = []
        for job in self.batch:
            try:
                with self._inside:
                    self._file.write([job])
            except Exception:  # its cause is known from `write`
                failed.append(job)
        self.batch = []
        return failed

    def finish(self) -> None:
        """Close the file."""
        with self._inside:
            self._file.finish()

    def _part(self) -> list[jobs.Job]:
        """The first jobs of the batch, as many as the budget allows to be written at once."""
        sizes = accumulate(job.size for job in self.batch)
        return self.batch[: 1 + sum(1 for _ in takewhile(lambda size: size < self._at_once, sizes))]


class LostError(sqlite3.Error):
    """All was written, but into a file that nobody can find."""
