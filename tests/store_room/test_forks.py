"""A fork waits for writers that are inside SQLite, but not for ever, and leaves every lock as it was."""

import gc
import os
import sqlite3
import threading

import pytest

from normkit.store import file, forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def forked():
    """Fork in this thread's hooks only: before and after, as the parent sees them."""
    forks._before()
    forks._after()


def test_fork_waits_until_the_writer_is_outside(monkeypatch):
    monkeypatch.setattr(forks, "PATIENCE", 30)
    guard, left = forks.guard(), []
    guard.acquire()
    threading.Timer(0.05, lambda: (left.append(True), guard.release())).start()
    forked()
    assert left == [True]
    assert not guard.locked()


def test_fork_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(forks, "PATIENCE", 0.01)
    guard = forks.guard()
    guard.acquire()
    forked()
    assert guard.locked()
    guard.release()


def test_guards_of_gone_writers_are_forgotten():
    before = len(forks._guards)
    guard = forks.guard()
    assert len(forks._guards) == before + 1
    del guard
    assert len(forks._guards) == before


def test_connection_outlives_its_names(tmp_path):
    """Only `finish` closes it: a forked child that drops it must not fold the parent's WAL."""
    path = tmp_path / "a.norms"
    opened = file.begin(path, {})
    name = id(opened.con)
    del opened
    kept = [each for each in gc.get_objects() if type(each) is sqlite3.Connection and id(each) == name]
    assert len(kept) == 1
    kept[0].close()
    file._live.discard(file._identity(path))


FORKS = """
import os, sys, threading, sqlite3
sys.path.insert(0, {tests!r})
from normkit.store.writer import Writer
from written import params, reading
writer = Writer(sys.argv[1], {{}})
layout = writer.layout(params(300))
for step in range(60):
    for more in range(5):
        writer.put(reading(5 * step + more, layout, 300))
    child = os.fork()
    if child == 0:
        con = sqlite3.connect(":memory:")
        con.execute("CREATE TABLE t (x)")
        os._exit(con.execute("SELECT count(*) FROM t").fetchone()[0])
    assert os.waitpid(child, 0)[1] == 0
"""


def test_children_of_a_busy_writer_may_use_sqlite(tmp_path):
    from written import assert_holds, finished, start

    code = FORKS.format(tests=os.path.dirname(os.path.dirname(__file__)))
    finished(start(code, tmp_path / "a.norms"))
    assert_holds(tmp_path / "a.norms", range(300), 300)
