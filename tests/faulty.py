"""A small training on a disk that fails on demand: what tests/store_room/test_disk_faults.py runs under its shim.

As a program, `faulty.py FOLDER begun` (or `resumed`: each recording goes on with a finished one), it prints how often
each kind of call is made when nothing fails, reads a list of `Fault`s from standard input, and prints for each how many
calls failed and a list of sentences: what was wrong. All of this is JSON, a line each.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import io
import json
import shutil
import sqlite3
import sys
import time
import warnings
from contextlib import redirect_stderr
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import normkit.torch as nk
from normkit.errors import FileError
from normkit.readers.recording import Recording
from normkit.store import file, forks, retention, writer
from normkit.types import QUANTITIES

STEPS = 12
BUDGET = 1 << 20  # bytes, of which the file may have very few (QUICK), though no record is too many
KINDS = ["open", "close", "read", "write", "fsync", "ftruncate", "rename"]
KINDS += ["unlink", "stat", "access", "mkdir", "mmap", "lock", "statfs"]
QUICK = {
    writer: {"RETRY": 0.01, "HOLD": 0.01, "PATIENCE": 0.05, "CLOSING": 5.0},
    forks: {"PATIENCE": 0.05},
    retention: {"FULL": 0.05, "LEAST": 64},
}


class Fault(NamedTuple):
    """The `nth` call of a kind fails with an errno's name ("half": does half of what was asked), so many `times`."""

    kind: str
    nth: int
    error: str
    times: int = 1


class Disk:
    """The shim, as loaded before libc."""

    def __init__(self) -> None:
        self.calls = ctypes.CDLL(None)
        self.calls.faults_seen.restype = self.calls.faults_failed.restype = ctypes.c_long

    def arm(self, fault: Fault) -> None:
        number = 0 if fault.error == "half" else getattr(errno, fault.error)
        times = (ctypes.c_long(fault.nth), ctypes.c_long(fault.times))
        assert self.calls.faults_arm(fault.kind.encode(), *times, number) == 0

    def mend(self) -> int:
        """No more failures; how many there were."""
        failed = self.calls.faults_failed()
        self.calls.faults_reset()
        return int(failed)

    def seen(self) -> dict[str, int]:
        return {kind: self.calls.faults_seen(kind.encode()) for kind in KINDS}


@dataclasses.dataclass
class Trained:
    """What came of a training."""

    state: list[torch.Tensor]
    refused: bool = False  # record() itself said FileError
    confirmed: tuple[int, ...] = ()  # the steps that flush() said can be read
    dropped: int = 0


def trained(path: Path | None, before: int = 0) -> Trained:
    """Twelve steps with dropout, recorded where there is a path; the weights, moments and random state at the end.

    A recording of the steps `before` is gone on with.
    """
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.4), torch.nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    result = Trained([])
    recorder = None
    try:
        if path is not None:
            more: Any = {"resume": True, "step": before} if before else {}
            recorder = nk.record(model, optimizer, to=path, every=1, quiet=True, budget=BUDGET, **more)
    except FileError:
        result.refused = True
    kept: Any = recorder and recorder._writer
    for step in range(1, STEPS + 1):
        loss = model(torch.randn(5, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.log(loss=loss)
            if step % 2 == 0 and kept.flush() == 0:
                result.confirmed = tuple(range(before + step + 1)) if kept.dropped == 0 else ()
    if recorder is not None:
        recorder.close()
        result.dropped = kept.dropped
    moments = [value for each in optimizer.state.values() for value in each.values()]
    result.state = [*(p.detach().clone() for p in model.parameters()), *moments, torch.get_rng_state()]
    return result


class Trial:
    """One fault after the other, each in a folder of its own, each compared with the undisturbed run."""

    def __init__(self, folder: Path, resumed: bool) -> None:
        self.folder, self.disk, self.first = folder, Disk(), None
        self.plain = trained(None)
        path = folder / "reference" / "a.norms"
        path.parent.mkdir(parents=True)
        self.known = []  # contents that are right, the last one in the end
        for self.before in range(0, STEPS * (1 + resumed), STEPS):
            self.first = path.read_bytes() if self.before else None
            self.disk.mend()
            trained(path, self.before)
            self.seen = self.disk.seen()
            self.known.append(contents(path))
        assert sorted(self.known[-1]) == list(range(STEPS * (1 + resumed) + 1))

    def complaints(self, number: int, fault: Fault) -> tuple[int, list[str]]:
        """How many calls failed, and what was wrong with the training or its recording."""
        folder = self.folder / str(number)
        folder.mkdir()
        path = folder / "a.norms"
        if self.first is not None:
            path.write_bytes(self.first)
        begun = time.monotonic()
        said = io.StringIO()
        self.disk.arm(fault)
        with warnings.catch_warnings(record=True) as caught, redirect_stderr(said):
            warnings.simplefilter("always")
            try:
                result = trained(path, self.before)
            except Exception as error:
                return self.disk.mend(), [f"raised {type(error).__name__}: {error}"]
        failed = self.disk.mend()
        wrong = [f"printed {said.getvalue()!r}"] * bool(said.getvalue())
        wrong += [f"{len(caught)} warnings: {[str(each.message) for each in caught]}"] * (len(caught) > 1)
        if not all(map(torch.equal, result.state, self.plain.state)):
            wrong.append("the training came out differently")
        if time.monotonic() - begun > 30:
            wrong.append("it took more than 30 s")
        if failed and fault.times == 1 and not result.refused and result.dropped:
            wrong.append(f"{result.dropped} records were lost to a single failure")
        wrong += self.wrong_in(path, result, gone=fault.times != 1)
        shutil.rmtree(folder)
        return failed, wrong

    def wrong_in(self, path: Path, result: Trained, gone: bool) -> list[str]:
        """What cannot be read, now that the disk works again."""
        left = sorted(each.name for each in path.parent.iterdir())
        if result.refused and self.first is None:
            return [f"record() refused, and left {left}"] * (bool(left) and not gone)
        try:
            found = contents(path)
        except FileError as error:
            return [f"{error}; beside it {left}; flush() had confirmed {len(result.confirmed)} records"] * (
                bool(result.confirmed or self.first) or "nothing was recorded" not in str(error)
            )
        wrong = []
        confirmed = set(result.confirmed) | (set(self.known[0]) if self.first is not None else set())
        if missing := sorted(confirmed - set(found)):
            wrong.append(f"steps {missing} were confirmed and are gone")
        if other := [step for step in found if not self.right(step, found[step])]:
            wrong.append(f"steps {other} hold something else")
        con = sqlite3.connect(path)
        checked = con.execute("PRAGMA integrity_check").fetchall()
        con.close()
        return wrong + [f"integrity: {checked}"] * (checked != [("ok",)])

    def right(self, step: int, sums: np.ndarray) -> bool:
        """Is it what some undisturbed run recorded at that step?"""
        return any(step in known and np.array_equal(sums, known[step], equal_nan=True) for known in self.known)


def contents(path: Path) -> dict[int, np.ndarray]:
    """Step -> all its sums."""
    recording = Recording(path)
    found = [recording.sums(each, quantity) for quantity in QUANTITIES for each in ("sum", "abs", "sq", "max", "zeros")]
    return {int(step): np.stack([each[at] for each in found]) for at, step in enumerate(recording.steps)}


def main(folder: str, what: str) -> None:
    for module, values in QUICK.items():
        for name, value in values.items():
            assert hasattr(module, name)
            setattr(module, name, value)
    file.WAL_BYTES = 16 << 10  # so that it is folded in mid-run
    trial = Trial(Path(folder), resumed=what == "resumed")
    print(json.dumps(trial.seen), flush=True)
    number = count()
    for line in sys.stdin:
        for given in json.loads(line):
            print(json.dumps(trial.complaints(next(number), Fault(*given))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
