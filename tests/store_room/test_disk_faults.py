"""Every system call that a recording makes fails once, for a while, and for ever: see faults.c and ../faulty.py.

The training comes out bit-equal, says at most one thing, and what was committed is there and equal. Only `record()`
itself may refuse, with a FileError, and then leaves nothing behind.
"""

import json
import os
import shutil
import subprocess
import sys
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


def assert_survives(shim, folder, faults, what="begun"):
    """Try the faults that `faults` makes of the undisturbed run's counts; returns the kinds that did fail."""
    environment = {"LD_PRELOAD": str(shim), "FAULTS_BELOW": f"{folder}/", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, HERE.parent / "faulty.py", folder / "disk", what],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    chosen = []
    try:
        if first := process.stdout.readline():
            chosen = faults(json.loads(first))
        said, errors = process.communicate(json.dumps(chosen), timeout=280)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    results = [json.loads(line) for line in said.splitlines()]
    assert len(results) == len(chosen) > 0
    wrong = [f"{fault}: {sentence}" for fault, (_, said) in zip(chosen, results, strict=True) for sentence in said]
    assert not wrong, "\n".join(wrong[:20])
    return {fault.kind for fault, (failed, _) in zip(chosen, results, strict=True) if failed}


def spread(count, wanted):
    """Up to `wanted` numbers of `range(count)`, evenly."""
    return sorted({round(at * (count - 1) / max(wanted - 1, 1)) for at in range(min(wanted, count))})


def test_each_kind_of_call_fails_here_and_there(shim, tmp_path):
    def faults(seen):
        return [Fault(kind, nth, ERRORS.get(kind, ["EIO"])[0]) for kind in KINDS for nth in spread(seen[kind], 4)]

    assert assert_survives(shim, tmp_path, faults) == {*KINDS} - NEVER


def test_disk_that_goes_away_in_mid_run(shim, tmp_path):
    def faults(seen):
        gone = {"write": "ENOSPC", "open": "EACCES", "fsync": "EIO"}
        return [
            *(Fault(kind, seen[kind] // 2, error, -1) for kind, error in gone.items()),
            Fault("any", sum(seen.values()) // 2, "EIO", -1),
            Fault("any", sum(seen.values()) // 2, "EIO", 30),
        ]

    assert assert_survives(shim, tmp_path, faults) == {"write", "open", "fsync", "any"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*KINDS} - NEVER))
def test_each_call_fails_once(shim, tmp_path, kind):
    def faults(seen):
        return [Fault(kind, nth, error) for nth in range(seen[kind]) for error in ERRORS.get(kind, ["EIO"])]

    assert assert_survives(shim, tmp_path, faults) == {kind}


@pytest.mark.slow
@pytest.mark.parametrize("times", [10, 100, -1])
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_nothing_works_from_some_call_on(shim, tmp_path, error, times):
    """For a while, or for ever."""

    def faults(seen):
        return [Fault("any", nth, error, times) for nth in spread(sum(seen.values()), 30)]

    assert assert_survives(shim, tmp_path, faults) == {"any"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*KINDS} - NEVER))
def test_one_kind_of_call_fails_from_then_on(shim, tmp_path, kind):
    def faults(seen):
        error = ERRORS.get(kind, ["EIO"])[0]
        return [Fault(kind, nth, error, -1) for nth in spread(seen[kind], 8)]

    assert assert_survives(shim, tmp_path, faults) == {kind}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*KINDS} - NEVER - {"mkdir"}))
def test_each_call_fails_once_in_a_resumed_recording(shim, tmp_path, kind):
    """What the file held before is there whatever happens."""

    def faults(seen):
        return [Fault(kind, nth, ERRORS.get(kind, ["EIO"])[0]) for nth in spread(seen[kind], 40)]

    assert assert_survives(shim, tmp_path, faults, "resumed") == {kind}
