"""The disk fails, training goes on: nothing raises, one warning, and what was committed is readable."""

import os
import sqlite3
import sys
import threading
import time
import warnings

import numpy as np
import pytest

from normkit.errors import FileError
from normkit.readers import Recording
from normkit.store import file, writer
from normkit.store.retention import Retention
from normkit.store.writer import Writer
from normkit.types import Reading
from written import assert_holds, finished, params, reading, rows, start


class Disk:
    """Stands before `File.write`; raises while `error` is set, waits while `gate` is down."""

    def __init__(self):
        self.error = None
        self.gate = threading.Event()
        self.gate.set()
        self.write = file.File.write

    def __call__(self, opened, batch):
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.write(opened, batch)


class Broken:
    """Stands for a function: raises `error` so many times, then does what the function does."""

    def __init__(self, error, times, instead_of=None):
        self.error, self.times, self.instead_of = error, times, instead_of

    def __call__(self, *args):
        if self.times:
            self.times -= 1
            raise self.error
        return self.instead_of and self.instead_of(*args)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()

    def write(opened, batch):  # a plain function, so that it becomes a method
        disk(opened, batch)

    monkeypatch.setattr(file.File, "write", write)
    monkeypatch.setattr(writer, "RETRY", 0.01)
    return disk


@pytest.fixture
def recorder(tmp_path, disk):
    recorder = Writer(tmp_path / "a.norms", {})
    yield recorder
    disk.error = None
    disk.gate.set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recorder.close()


FULL = sqlite3.OperationalError("database or disk is full")
NO_DESCRIPTOR = sqlite3.OperationalError("unable to open database file")


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_full_disk_warns_once_and_keeps_what_was_committed(recorder, disk):
    layout = recorder.layout(params(3))
    for step in range(5):
        recorder.put(reading(step, layout, 3))
    recorder.flush()
    disk.error = FULL
    recorder.put(reading(5, layout, 3))
    wait_for(lambda: recorder.error)
    with pytest.warns(
        RuntimeWarning, match=r"could not write to '.*a\.norms': database or disk is full; training goes on"
    ):
        recorder.put(reading(6, layout, 3))
    for step in range(7, 10):
        recorder.put(reading(step, layout, 3))
    recorder.close()
    assert recorder.error == "database or disk is full"
    assert recorder.dropped == 5
    assert_holds(recorder.path, range(5), 3)


def test_warning_comes_at_close_where_no_call_follows(recorder, disk):
    disk.error = FULL
    recorder.put(reading(0, recorder.layout(params(3)), 3))
    with pytest.warns(RuntimeWarning, match="database or disk is full"):
        recorder.close()


def test_disk_that_recovers_loses_nothing(recorder, disk):
    disk.error = OSError(28, "No space left on device")
    layout = recorder.layout(params(3))
    with pytest.warns(RuntimeWarning, match="No space left on device"):  # noqa: PT031
        for step in range(10):
            recorder.put(reading(step, layout, 3))
            wait_for(lambda: recorder.error)
    disk.error = None
    recorder.close()
    assert recorder.dropped == 0
    assert_holds(recorder.path, range(10), 3)


def test_warnings_as_errors_do_not_raise(recorder, disk, capsys):
    disk.error = FULL
    layout = recorder.layout(params(3))
    recorder.put(reading(0, layout, 3))
    wait_for(lambda: recorder.error)
    recorder.put(reading(1, layout, 3))
    assert "database or disk is full" in capsys.readouterr().err


def test_slow_disk_holds_training_up_once_then_drops(recorder, disk, monkeypatch):
    monkeypatch.setattr(writer, "PATIENCE", 0.05)
    monkeypatch.setattr(writer, "QUEUE_BYTES", 3000)
    disk.gate.clear()
    layout = recorder.layout(params(3))
    with pytest.warns(RuntimeWarning, match="the disk is slower than the training: .* MB wait to be written"):  # noqa: PT031
        for step in range(20):
            recorder.put(reading(step, layout, 3))
    assert 0 < recorder.dropped < 20
    kept = 20 - recorder.dropped
    disk.gate.set()
    recorder.close()
    assert recorder.dropped == 20 - kept
    assert_holds(recorder.path, range(kept), 3)


def test_queue_of_a_disk_that_is_gone_is_bounded(recorder, disk, monkeypatch):
    monkeypatch.setattr(writer, "QUEUE_BYTES", 3000)
    disk.error = FULL
    layout = recorder.layout(params(3))
    with pytest.warns(RuntimeWarning, match="disk is full"):  # noqa: PT031
        for step in range(100):
            recorder.put(reading(step, layout, 3))
            recorder.event("a", "b")
            recorder.amend(0, {"loss": 1.0})
            wait_for(lambda: recorder.error)
    assert recorder._bytes <= 2 * 3000


def test_one_bad_job_does_not_take_others_with_it(tmp_path, monkeypatch):
    recorder = Writer(tmp_path / "a.norms", {})
    layout = recorder.layout(params(3))
    recorder.put(reading(0, layout, 3))
    recorder.put(reading(2**63, layout, 3))
    recorder.put(reading(2, layout, 3))
    with pytest.warns(RuntimeWarning, match="too large"):
        recorder.close()
    assert recorder.dropped == 1
    assert_holds(recorder.path, [0, 2], 3)


def test_thinning_that_fails_loses_nothing(recorder, monkeypatch):
    """The records are committed by then: they are not written again, nor counted as lost."""
    monkeypatch.setattr(Retention, "due", lambda self, con: True)
    monkeypatch.setattr(Retention, "run", Broken(FULL, times=2))
    layout = recorder.layout(params(3))
    with pytest.warns(RuntimeWarning, match="database or disk is full"):  # noqa: PT031
        for step in range(6):
            recorder.put(reading(step, layout, 3))
            recorder.flush()
        recorder.close()
    assert recorder.dropped == 0
    assert_holds(recorder.path, range(6), 3)


def test_file_that_cannot_be_opened_again_at_once(recorder, monkeypatch):
    """Somebody removed the WAL, and then the process has no descriptor left for a while."""
    layout = recorder.layout(params(3))
    recorder.put(reading(0, layout, 3))
    recorder.flush()
    recorder.path.with_name("a.norms-wal").unlink()
    monkeypatch.setattr(file, "_connected", Broken(NO_DESCRIPTOR, 2, file._connected))
    with pytest.warns(RuntimeWarning, match="unable to open database file"):  # noqa: PT031
        for step in range(1, 6):
            recorder.put(reading(step, layout, 3))
            recorder.flush()
        recorder.close()
    assert recorder.dropped == 0
    assert_holds(recorder.path, range(6), 3)


def test_begin_that_fails_late_says_so_and_leaves_no_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(file.File, "_next_numbers", Broken(sqlite3.OperationalError("disk I/O error"), times=1))
    with pytest.raises(FileError, match=r"the recording '.*a\.norms' cannot be begun \(disk I/O error\); give another"):
        Writer(tmp_path / "a.norms", {})
    assert not file._live


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"weight": np.zeros((6, 4))}, r"sums of 'weight' have shape \(6, 4\); their layout needs \(6 or 7, 3\)"),
        ({"grad": np.zeros((5, 3))}, r"sums of 'grad' have shape \(5, 3\); their layout needs \(6 or 7, 3\)"),
        ({"update": np.zeros(3)}, r"sums of 'update' have shape \(3,\); their layout needs \(6 or 7, 3\)"),
    ],
)
def test_wrong_shape_is_said_and_left_out(tmp_path, values, sentence):
    recorder = Writer(tmp_path / "a.norms", {})
    layout = recorder.layout(params(3))
    with pytest.warns(RuntimeWarning, match=sentence):
        assert recorder.put(Reading(0, layout, 0.0, values)) == -1
    recorder.put(reading(1, layout, 3))
    recorder.close()
    assert_holds(recorder.path, [1], 3)


LIMIT = """
import resource, signal, sys, warnings
sys.path.insert(0, {tests!r})
from normkit.store.retention import Retention
from normkit.store.writer import Writer
from written import params, reading
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = Writer(sys.argv[1], {{}})
layout = writer.layout(params(200))
for step in range(5):
    writer.put(reading(step, layout, 200))
assert writer.flush() == 0
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for step in range(5, 40):
        writer.put(reading(step, layout, 200))
        writer.flush()
    writer.close()
print(len(caught), writer.error is not None, writer.dropped > 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_file_that_may_not_grow(tmp_path):
    """The kernel itself refuses: the file size limit stands for a full disk."""
    code = LIMIT.format(tests=os.path.dirname(os.path.dirname(__file__)))
    assert finished(start(code, tmp_path / "a.norms")).strip() == "1 True True"
    steps = Recording(tmp_path / "a.norms").steps
    assert steps[:5].tolist() == list(range(5))
    assert_holds(tmp_path / "a.norms", steps, 200)
    assert rows(tmp_path / "a.norms", "PRAGMA integrity_check") == [("ok",)]
