"""The own thread pool: the same numbers with any number of threads, from any thread, and after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from normkit.errors import ArgumentError
from normkit.ops import cpu
from normkit.ops.cpu import SEGMENT, Table

LENGTH = 9 * SEGMENT + 11


def numbers(seed=0, length=LENGTH):
    return np.random.default_rng(seed).standard_normal(length, dtype=np.float32)


def table(*arrays):
    return Table([x.ctypes.data for x in arrays], [x.size for x in arrays], [1] * len(arrays), keep=arrays)


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_the_number_of_threads_changes_no_bit(monkeypatch, threads):
    arrays = [numbers(0), numbers(1, 100), numbers(2, 2 * SEGMENT)]
    monkeypatch.setenv("NORMKIT_THREADS", "1")
    alone = cpu.sums(table(*arrays))
    monkeypatch.setenv("NORMKIT_THREADS", str(threads))
    assert cpu.threads() == threads
    for _ in range(5):
        np.testing.assert_array_equal(cpu.sums(table(*arrays)), alone)


def test_threads_are_the_processors_that_may_be_used(monkeypatch):
    monkeypatch.delenv("NORMKIT_THREADS", raising=False)
    expected = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert cpu.threads() == expected


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5", ""])
def test_a_bad_number_of_threads_is_an_error(monkeypatch, value):
    monkeypatch.setenv("NORMKIT_THREADS", value)
    with pytest.raises(
        ArgumentError, match=f"NORMKIT_THREADS is '{value}'; it must be a whole number of threads, 1 or more"
    ):
        cpu.threads()


def test_small_work_wakes_no_thread(monkeypatch):
    monkeypatch.setenv("NORMKIT_THREADS", "4")
    monkeypatch.setattr(cpu, "_pool", None)  # asking for a pool would fail
    few = numbers(0, cpu.ALONE_BELOW // 4 - 1)
    assert cpu.sums(table(few))[0, 0] == pytest.approx(few.sum(dtype=np.float64), abs=1e-9)


def test_many_threads_may_ask_at_once(monkeypatch):
    monkeypatch.setenv("NORMKIT_THREADS", "3")
    arrays = [numbers(seed) for seed in range(8)]
    expected = [cpu.sums(table(x)) for x in arrays]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: cpu.sums(table(x)), arrays))
    np.testing.assert_array_equal(found, expected)


def test_shutting_down_leaves_the_work_to_the_caller(monkeypatch):
    monkeypatch.setenv("NORMKIT_THREADS", "2")
    stopped = ThreadPoolExecutor(1)
    stopped.shutdown()
    monkeypatch.setattr(cpu, "_pool", lambda process, size: stopped)
    x = numbers()
    assert cpu.sums(table(x))[1, 0] == pytest.approx(np.abs(x).sum(dtype=np.float64), rel=1e-12)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_makes_its_own_pool():
    script = """
        import os, sys
        import numpy as np
        from normkit.ops import cpu
        os.environ["NORMKIT_THREADS"] = "2"
        x = np.ones(3_000_000, np.float32)
        table = cpu.Table([x.ctypes.data], [x.size], [1])
        assert cpu.sums(table)[0, 0] == 3e6
        child = os.fork()
        if child == 0:
            assert cpu.sums(table)[0, 0] == 3e6
            assert len(cpu._pools) == 2
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "7", done.stderr
