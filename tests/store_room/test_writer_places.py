"""The place of a recording changes in mid-run: removed, moved, replaced, made read-only, full and then not."""

import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from normkit.store.writer import Writer
from written import assert_holds, finished, params, reading, rows, start, write

TESTS = str(Path(__file__).resolve().parent.parent)
BEGIN = f"""
import ctypes, os, resource, signal, sys, warnings
sys.path.insert(0, {TESTS!r})
import normkit
from normkit.store.paths import new_path
from normkit.store.writer import Writer
from written import params, reading

def without_privileges():
    "Root obeys the permissions of files only without its capabilities."
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, none) == 0

def put(steps):
    for step in steps:
        writer.put(reading(step, layout, 200))
        writer.flush()

path = sys.argv[1]
"""


def remove_file(path):
    path.unlink()


def remove_all(path):
    shutil.rmtree(path.parent)


def remove_log(path):
    path.with_name("a.norms-wal").unlink()


def move(path):
    path.rename(path.with_name("b.norms"))


def replace(path):
    path.with_name("other").write_bytes(b"somebody's own")
    path.with_name("other").replace(path)


def replace_by_recording(path):
    write(path.with_name("other.norms"), range(7, 9)).replace(path)


@pytest.mark.parametrize("harm", [remove_file, remove_all, remove_log, move, replace, replace_by_recording])
def test_place_taken_away_in_mid_run(tmp_path, recwarn, harm):
    """At most one warning, nothing raised; whatever stands at the path now is not touched."""
    path = tmp_path / "runs" / "a.norms"
    path.parent.mkdir()
    writer = Writer(path, {})
    layout = writer.layout(params(3))
    writer.put(reading(0, layout, 3))
    assert writer.flush() == 0
    harm(path)
    there = path.read_bytes() if path.exists() else None
    for step in range(1, 4):
        writer.put(reading(step, layout, 3))
        writer.flush()
    writer.close()
    said = [str(each.message) for each in recwarn]
    assert len(said) == (harm is not remove_log)
    assert all("training goes on" in sentence for sentence in said)
    if harm is remove_log:
        assert_holds(path, range(4), 3)
    elif harm is move:
        assert_holds(path.with_name("b.norms"), range(4), 3)
    elif there is not None:
        assert path.read_bytes() == there


SECOND = (
    BEGIN
    + """
import time
writer = Writer(new_path(path).path, {})
layout = writer.layout(params(200))
put(range(10))
print(writer.path, flush=True)
while os.path.exists(sys.argv[2]):
    time.sleep(0.01)
put(range(10, 20))
"""
)


def test_name_of_a_removed_recording_that_is_still_written(tmp_path):
    """Its WAL is still there, and in use: a second recording of that name must not take it for its own."""
    first = Writer(tmp_path / "a.norms", {})
    layout = first.layout(params(3))
    first.put(reading(100, layout, 3))
    first.flush()
    first.path.unlink()
    gate = tmp_path / "gate"
    gate.touch()
    second = start(SECOND, tmp_path / "a.norms", gate)
    path = second.stdout.readline().strip()
    with pytest.warns(RuntimeWarning, match="training goes on"):  # noqa: PT031
        for step in range(101, 110):
            first.put(reading(step, layout, 3))
            first.flush()
        first.close()
    gate.unlink()
    finished(second)
    assert_holds(path, range(20), 200)
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


READ_ONLY = (
    BEGIN
    + """
without_privileges()
writer = Writer(path, {})
layout = writer.layout(params(200))
put(range(10))
os.chmod(sys.argv[2], int(sys.argv[3], 8))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    put(range(10, 20))
    writer.close()
print(len(caught), len(normkit.load(path)))
"""
)
not_here = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")


@not_here
@pytest.mark.parametrize(("what", "mode"), [("a.norms", "444"), ("a.norms-wal", "444"), ("", "555")])
def test_read_only_in_mid_run(tmp_path, what, mode):
    """What is open stays writable, and what was written is readable there and then."""
    folder = tmp_path / "runs"
    folder.mkdir()
    try:
        warned, count = finished(start(READ_ONLY, folder / "a.norms", folder / what, mode)).split()
    finally:
        folder.chmod(0o755)
    assert int(warned) <= 1
    assert count == "20"
    assert_holds(folder / "a.norms", range(20), 200)


@not_here
def test_read_only_folder_at_the_start(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir(0o555)
    code = BEGIN + ("without_privileges()\ntry: new_path(path)\nexcept normkit.FileError as error: print(error)\n")
    assert "a.norms' cannot be made (Permission denied); give another path by to=" in finished(
        start(code, folder / "a.norms")
    )
    assert list(folder.iterdir()) == []


SPACE_RETURNS = (
    BEGIN
    + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = Writer(path, {})
layout = writer.layout(params(200))
put(range(5))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    put(range(5, 40))
    failed = writer.error
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    put(range(40, 50))
    writer.close()
print(len(caught), failed is not None, writer.dropped)
"""
)


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_space_that_returns(tmp_path):
    assert finished(start(SPACE_RETURNS, tmp_path / "a.norms")).strip() == "1 True 0"
    assert_holds(tmp_path / "a.norms", range(50), 200)
    assert os.listdir(tmp_path) == ["a.norms"]


def test_wal_removed_just_before_a_new_layout(tmp_path):
    """The batch that brings the layout notices it like any other: what it commits is found again."""
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(3))
    writer.put(reading(0, layout, 3))
    writer.flush()
    with sqlite3.connect(writer.path) as folding:
        folding.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    folding.close()
    writer.path.with_name("a.norms-wal").unlink()
    wider = writer.layout(params(5))
    writer.put(reading(1, wider, 5))
    assert writer.flush() == 0
    con = sqlite3.connect(writer.path)
    assert con.execute("SELECT step, layout FROM record ORDER BY seq").fetchall() == [(0, layout), (1, wider)]
    con.close()
    writer.close()
    assert writer.error is None
