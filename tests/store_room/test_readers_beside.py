"""Others read while one process writes: no error, a prefix, equal; and nobody's leaving takes anything with it."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import normkit
from written import assert_holds, finished, matrix, rows, start

TESTS = str(Path(__file__).resolve().parent.parent)
IMPORTS = f"""
import os, pathlib, shutil, signal, sqlite3, subprocess, sys, time
sys.path.insert(0, {TESTS!r})
import normkit
from normkit.store.writer import Writer
from written import params, reading
"""
WRITES = (
    IMPORTS
    + """
writer = Writer(sys.argv[1], {})
layout = writer.layout(params(50))
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
print("ready", flush=True)
begun, step = time.monotonic(), 0
while not stopped:
    writer.put(reading(step, layout, 50))
    step += 1
    time.sleep(max(0.0, begun + step / 400 - time.monotonic()))
writer.close()
print(step, writer.error, writer.dropped)
"""
)
READS = (
    IMPORTS
    + f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
    + """
from test_readers_beside import assert_prefix
seen, until = 0, time.monotonic() + 4
while time.monotonic() < until:
    seen = assert_prefix(sys.argv[1], seen)
"""
)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals differ")


def assert_prefix(path, least):
    """Loads the file, asks it in several ways, compares with what was put; how many records there are."""
    run = normkit.load(path)
    count = len(run)
    assert count >= least
    if not count:  # not even the layout is there yet
        return 0
    assert_holds(run, range(count), 50)
    at = np.linspace(0, count - 1, 5).astype(int)
    expected = [matrix(step, 50, 6)[2, 7] for step in at]  # the row of squares
    np.testing.assert_array_equal(run.series("layer.7.weight")[at], np.sqrt(expected))
    assert run.at(count - 1)["layer.7.weight"]["weight"].sq == expected[-1]
    return count


def stopped(process):
    """Ends a writer by SIGTERM: how many it put, its error, what it dropped."""
    process.terminate()
    return finished(process).split()


def test_reader_sees_growing_prefixes(tmp_path):
    path = tmp_path / "a.norms"
    process = start(WRITES, path)
    try:
        process.stdout.readline()
        lengths, deadline = [0], time.monotonic() + 30
        while len(set(lengths)) < 5 and time.monotonic() < deadline:
            lengths.append(assert_prefix(path, lengths[-1]))
            time.sleep(0.05)
        assert len(set(lengths)) == 5
        count, error, dropped = stopped(process)
    finally:
        process.kill()
        process.communicate()
    assert (error, dropped) == ("None", "0")
    assert_holds(path, range(int(count)), 50)
    assert os.listdir(tmp_path) == ["a.norms"]


@pytest.mark.slow
def test_four_readers_come_and_go_without_a_pause(tmp_path):
    path = tmp_path / "a.norms"
    process = start(WRITES, path)
    try:
        process.stdout.readline()
        for reader in [start(READS, path) for _ in range(4)]:
            finished(reader)
        count, error, dropped = stopped(process)
    finally:
        process.kill()
        process.communicate()
    assert (error, dropped) == ("None", "0")
    assert_holds(path, range(int(count)), 50)


# POSIX locks belong to the process: whoever in it opens and closes a file drops those that SQLite holds on it. A
# stranger who then leaves believes to be the last one and deletes the WAL, and the writer goes on into nothing.
LOOKS = {
    "nobody": "",
    "load": "normkit.load(path)",
    "sqlite3": "sqlite3.connect(path).close()",
    "read": "pathlib.Path(path).read_bytes()",
    "copy": "shutil.copytree(folder, f'{folder}-{round}')",
}
STRANGER = "import sqlite3, sys; con = sqlite3.connect(sys.argv[1]); con.execute('SELECT * FROM record'); con.close()"
LOOKED_AT = (
    IMPORTS
    + f"""
path, look, end = sys.argv[1:]
folder = os.path.dirname(path)
holds = None
writer = Writer(path, {{}})
layout = writer.layout(params(3))
for round in range(3):
    for step in range(10):
        writer.put(reading(10 * round + step, layout, 3))
    assert writer.flush() == 0
    exec(look)
    subprocess.run([sys.executable, "-c", {STRANGER!r}, path], check=True)
    if end == "held" and holds is None:
        code = "import sqlite3, sys; con = sqlite3.connect(sys.argv[1]); con.execute('BEGIN');"
        code += "con.execute('SELECT * FROM record').fetchone(); print(flush=True); sys.stdin.read()"
        holds = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holds.stdout.readline()
for step in range(30, 40):
    writer.put(reading(step, layout, 3))
assert writer.flush() == 0
if holds is not None:
    holds.communicate()
if end == "closed":
    writer.close()
    sys.exit(0 if writer.error is None else 1)
os._exit(0)
"""
)


@pytest.mark.parametrize("end", ["closed", "left", "held"])
@pytest.mark.parametrize("look", LOOKS)
def test_look_at_the_own_file_loses_nothing(tmp_path, look, end):
    path = tmp_path / "runs" / "a.norms"
    path.parent.mkdir()
    finished(start(LOOKED_AT, path, LOOKS[look], end))
    assert_holds(path, range(40), 3)
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
