"""What other processes do to a recording, and a recording to them: kill, fork, exit, many at once."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from normkit.readers import Recording
from normkit.store.writer import Writer
from written import assert_holds, finished, params, reading, rows, start

TESTS = str(Path(__file__).resolve().parent.parent)
BEGIN = (
    f"import sys, os, time; sys.path.insert(0, {TESTS!r})\n"
    """
from normkit.store.writer import Writer
from normkit.store.paths import new_path
from written import params, reading
writer = Writer(new_path(sys.argv[1]).path, {"framework": "made up"})
layout = writer.layout(params(50))
"""
)
FOR_EVER = (
    BEGIN
    + """
step, begun = 0, time.monotonic()
while True:
    writer.put(reading(step, layout, 50, wall=time.time()))
    print(step, time.time(), flush=True)
    step += 1
    time.sleep(max(0.0, begun + step / 400 - time.monotonic()))
"""
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def lines_until(process, seconds):
    """(step, time) of each record that a child says it has put, killed after `seconds`."""
    deadline = time.monotonic() + seconds
    seen = []
    while time.monotonic() < deadline:
        step, when = process.stdout.readline().split()
        seen.append((int(step), float(when)))
    process.send_signal(signal.SIGKILL)
    killed = time.time()
    process.wait(30)
    process.stdout.close()
    process.stderr.close()
    return seen, killed


MOMENTS = [pytest.param(random.Random(seed).uniform(0.1, 5), marks=pytest.mark.slow) for seed in range(10)]


@pytest.mark.parametrize("seconds", [0.3, 2.3, *MOMENTS])
def test_killed_process_loses_the_last_moment_only(tmp_path, seconds):
    path = tmp_path / "a.norms"
    seen, killed = lines_until(start(FOR_EVER, path), seconds)
    recording = Recording(path)
    old = [step for step, when in seen if when < killed - 1.5]
    assert recording.steps[: len(old)].tolist() == old
    assert_holds(path, range(len(recording)), 50)
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_another_process_reads_while_this_one_writes(tmp_path):
    path = tmp_path / "a.norms"
    process = start(FOR_EVER, path)
    try:
        process.stdout.readline()
        recording, deadline = Recording(path), time.monotonic() + 30
        lengths = [len(recording)]
        while len(set(lengths)) < 5 and time.monotonic() < deadline:
            time.sleep(0.1)
            lengths.append(len(recording.refresh()))
            assert_holds(recording, range(lengths[-1]), 50)
    finally:
        process.kill()
        process.communicate()
    assert lengths == sorted(lengths)
    assert len(set(lengths)) == 5


def test_reader_that_is_connected_does_not_keep_the_writer_from_closing(tmp_path):
    import sqlite3

    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(3))
    writer.put(reading(0, layout, 3))
    writer.flush()
    other = sqlite3.connect(writer.path)
    other.execute("BEGIN")
    assert other.execute("SELECT count(*) FROM record").fetchone() == (1,)
    writer.put(reading(1, layout, 3))
    writer.close()
    assert writer.error is None
    other.close()
    assert_holds(writer.path, [0, 1], 3)


def test_ten_processes_at_once_make_ten_recordings(tmp_path):
    """All of them are there and wait at the gate before the first one asks for the name."""
    gate = tmp_path / "open"
    wait = "print('here', flush=True)\nwhile not os.path.exists(sys.argv[2]): pass\n"
    code = BEGIN.replace("writer = Writer", f"{wait}writer = Writer")
    folder = tmp_path / "runs"
    code += "for step in range(20): writer.put(reading(step, layout, 50))\n"
    started = [start(code, folder / "same", gate) for _ in range(10)]
    assert [process.stdout.readline() for process in started] == ["here\n"] * 10
    gate.touch()
    for process in started:
        finished(process)
    paths = sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name))
    assert [path.name for path in paths] == ["same.norms", *(f"same-{number}.norms" for number in range(2, 11))]
    for path in paths:
        assert_holds(path, range(20), 50)


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "sys.exit()"])
def test_interpreter_exit_flushes(tmp_path, end):
    finished(start(BEGIN + "for step in range(20): writer.put(reading(step, layout, 50))\n" + end, tmp_path / "a"))
    assert_holds(tmp_path / "a.norms", range(20), 50)
    assert os.listdir(tmp_path) == ["a.norms"]


def test_exception_flushes(tmp_path):
    process = start(BEGIN + "writer.put(reading(0, layout, 50))\nraise KeyError('boom')", tmp_path / "a")
    assert "KeyError: 'boom'" in process.communicate(timeout=60)[1]
    assert_holds(tmp_path / "a.norms", [0], 50)


FORK = (
    BEGIN
    + """
for step in range(10):
    writer.put(reading(step, layout, 50))
child = os.fork()
if child == 0:
    assert writer.put(reading(99, layout, 50)) == writer.layout(params(3)) == writer.flush() == -1
    writer.amend(0, {"loss": 1.0})
    writer.event("never", "said")
    if sys.argv[2] == "closes":
        writer.close()
    del writer
    if sys.argv[2] == "leaves":
        os._exit(0)
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
for step in range(10, 20):
    writer.put(reading(step, layout, 50))
    assert writer.flush() == 0
"""
)


@needs_fork
@pytest.mark.parametrize("how", ["closes", "exits", "leaves"])
def test_forked_child_leaves_the_file_alone(tmp_path, how):
    finished(start(FORK, tmp_path / "a", how))
    assert_holds(tmp_path / "a.norms", range(20), 50)
    assert Recording(tmp_path / "a.norms").events == []
    assert rows(tmp_path / "a.norms", "PRAGMA integrity_check") == [("ok",)]


@needs_fork
def test_forked_child_may_record_for_itself(tmp_path):
    code = (
        BEGIN
        + """
child = os.fork()
if child == 0:
    writer = Writer(new_path(sys.argv[1]).path, {})
    layout = writer.layout(params(50))
    writer.put(reading(7, layout, 50))
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
writer.put(reading(1, layout, 50))
"""
    )
    finished(start(code, tmp_path / "a"))
    assert_holds(tmp_path / "a.norms", [1], 50)
    assert_holds(tmp_path / "a-2.norms", [7], 50)


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_os_exit_keeps_what_was_flushed(tmp_path):
    code = BEGIN + "writer.put(reading(0, layout, 50)); writer.flush(); writer.put(reading(1, layout, 50)); os._exit(0)"
    finished(start(code, tmp_path / "a"))
    assert Recording(tmp_path / "a.norms").steps[0] == 0


ABRUPT = {
    "os._exit": "os._exit(0)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "SIGHUP": "os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)",
    "abort": "os.abort()",
}
ENDS = ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ABRUPT if name != "SIGTERM")]


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
@pytest.mark.parametrize("end", ENDS)
def test_abrupt_end_keeps_what_is_older_than_a_second_and_a_half(tmp_path, end):
    code = BEGIN + (
        "import signal\n"
        "for step in range(100): writer.put(reading(step, layout, 50))\n"
        "time.sleep(1.5)\n"
        "for step in range(100, 200): writer.put(reading(step, layout, 50))\n"
    )
    process = start(code + ABRUPT[end], tmp_path / "a")
    process.communicate(timeout=60)
    recording = Recording(tmp_path / "a.norms")
    assert len(recording) >= 100
    assert_holds(recording, range(len(recording)), 50)
    assert rows(tmp_path / "a.norms", "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_interrupt_flushes(tmp_path):
    code = (
        "import signal\n"
        "for step in range(20):\n"
        "    writer.put(reading(step, layout, 50))\n"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    )
    process = start(BEGIN + code, tmp_path / "a")
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert_holds(tmp_path / "a.norms", range(20), 50)
    assert os.listdir(tmp_path) == ["a.norms"]
