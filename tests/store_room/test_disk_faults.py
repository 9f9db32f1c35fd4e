"""Every system call that a recording makes fails once, for a while, and for ever: see faults.c and ../faulty.py.

The training comes out bit-equal, says at most one thing, and what was committed is there and equal. Only `record()`
itself may refuse, with a FileError, and then leaves nothing behind.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from faulty import KINDS, Fault

HERE = Path(__file__).resolve().parent
NEVER = {"access", "rename", "statfs"}  # calls that are not made as things stand: counted all the same
ERRORS = {
    "open": ["EACCES", "ENOSPC", "EMFILE"],
    "read": ["EIO", "half"],
    "write": ["ENOSPC", "half"],
    "fsync": ["EIO", "ENOSPC"],
    "unlink": ["EACCES"],
    "mkdir": ["EACCES"],
    "mmap": ["ENOMEM"],
    "lock": ["ENOLCK", "EAGAIN"],
}
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and /proc/self/fd are Linux's"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    made = tmp_path_factory.mktemp("shim") / "faults.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", made, HERE / "faults.c", "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True)
    return made


class Trials:
    """A process that trains on failing disks, one fault after the other."""

    def __init__(self, shim, folder, what):
        environment = {"LD_PRELOAD": str(shim), "FAULTS_BELOW": f"{folder}/", "OMP_NUM_THREADS": "1"}
        self.errors = (folder / "errors").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, HERE.parent / "faulty.py", folder / "disk", what],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.seen = self.answer()  # the undisturbed run's counts of calls

    def answer(self):
        """What it says next; the test fails where it ended, or was killed because it said nothing for too long."""
        patience = threading.Timer(280, self.process.kill)
        patience.start()
        line = self.process.stdout.readline()
        patience.cancel()
        if not line:
            self.errors.seek(0)
            raise AssertionError(self.errors.read() or "no answer")
        return json.loads(line)

    def assert_survives(self, faults):
        """Try the faults; returns the kinds that did fail."""
        self.process.stdin.write(json.dumps(faults) + "\n")
        self.process.stdin.flush()
        results = [self.answer() for _ in faults]
        assert results
        wrong = [f"{fault}: {sentence}" for fault, (_, said) in zip(faults, results, strict=True) for sentence in said]
        assert not wrong, "\n".join(wrong[:20])
        return {fault.kind for fault, (failed, _) in zip(faults, results, strict=True) if failed}

    def close(self):
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            pipe.close()
        self.process.wait()


def trials(shim, tmp_path_factory, what):
    made = Trials(shim, tmp_path_factory.mktemp(what), what)
    yield made
    made.close()


@pytest.fixture(scope="module")
def begun(shim, tmp_path_factory):
    yield from trials(shim, tmp_path_factory, "begun")


@pytest.fixture(scope="module")
def resumed(shim, tmp_path_factory):
    yield from trials(shim, tmp_path_factory, "resumed")


def spread(count, wanted):
    """Up to `wanted` numbers of `range(count)`, evenly."""
    return sorted({round(at * (count - 1) / max(wanted - 1, 1)) for at in range(min(wanted, count))})


def test_each_kind_of_call_fails_here_and_there(begun):
    seen = begun.seen
    faults = [Fault(kind, nth, ERRORS.get(kind, ["EIO"])[0]) for kind in KINDS for nth in spread(seen[kind], 4)]

    assert begun.assert_survives(faults) == {*KINDS} - NEVER


def test_disk_that_goes_away_in_mid_run(begun):
    seen = begun.seen
    gone = {"write": "ENOSPC", "open": "EACCES", "fsync": "EIO"}
    faults = [
        *(Fault(kind, seen[kind] // 2, error, -1) for kind, error in gone.items()),
        Fault("any", sum(seen.values()) // 2, "EIO", -1),
        Fault("any", sum(seen.values()) // 2, "EIO", 30),
    ]

    assert begun.assert_survives(faults) == {"write", "open", "fsync", "any"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*KINDS} - NEVER))
def test_each_call_fails_once(begun, kind):
    seen = begun.seen
    errors = ERRORS.get(kind, ["EIO"])
    faults = [Fault(kind, nth, errors[nth % len(errors)]) for nth in range(seen[kind])]

    assert begun.assert_survives(faults) == {kind}


@pytest.mark.slow
@pytest.mark.parametrize("times", [10, 100, -1])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_nothing_works_from_some_call_on(begun, error, times):
    """For a while, or for ever."""

    seen = begun.seen
    faults = [Fault("any", nth, error, times) for nth in spread(sum(seen.values()), 10)]

    assert begun.assert_survives(faults) == {"any"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*KINDS} - NEVER))
def test_one_kind_of_call_fails_from_then_on(begun, kind):
    seen = begun.seen
    error = ERRORS.get(kind, ["EIO"])[0]
    faults = [Fault(kind, nth, error, -1) for nth in spread(seen[kind], 5)]

    assert begun.assert_survives(faults) == {kind}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*KINDS} - NEVER - {"mkdir"}))
def test_each_call_fails_once_in_a_resumed_recording(resumed, kind):
    """What the file held before is there whatever happens."""

    seen = resumed.seen
    faults = [Fault(kind, nth, ERRORS.get(kind, ["EIO"])[0]) for nth in spread(seen[kind], 12)]

    assert resumed.assert_survives(faults) == {kind}
