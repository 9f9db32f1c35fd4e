"""Readings and the recordings that the writer makes of them: what the tests of `store` and `readers` share."""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import numpy as np

from normkit.store.writer import Writer
from normkit.types import Param, Reading


def params(count, prefix="layer", shape=(4, 3)):
    return tuple(Param(f"{prefix}.{i}.weight", shape, "float32", "kernel", layer="Linear") for i in range(count))


def matrix(step, count, rows=7, seed=0):
    """Sums that tell step, tensor and row apart, and cannot be told from float32 by chance."""
    return np.random.default_rng([seed, step, count]).random((rows, count)) + np.arange(rows)[:, None] + 0.1


def reading(step, layout, count, **more):
    """A reading with all three quantities; `more` replaces fields."""
    values = {"weight": matrix(step, count, 6), "grad": matrix(step, count, 7, 1), "update": matrix(step, count, 7, 2)}
    return Reading(**({"step": step, "layout": layout, "wall": 1.7e9 + step, "values": values} | more))


def write(path, steps=range(5), count=3, meta=None, **more):
    """A finished recording of the `steps`; returns its path."""
    writer = Writer(path, meta or {"framework": "made up"})
    layout = writer.layout(params(count))
    for step in steps:
        writer.put(reading(step, layout, count, **more))
    writer.close()
    assert writer.error is None
    assert writer.dropped == 0
    return path


def rows(path, query):
    """What another program sees in the file."""
    con = sqlite3.connect(path)
    try:
        return con.execute(query).fetchall()
    finally:
        con.close()


def change(path, *statements):
    """Damage the file with SQL."""
    con = sqlite3.connect(path)
    try:
        for statement in statements:
            con.execute(statement)
        con.commit()
    finally:
        con.close()


def assert_holds(file, steps, count):
    """The file, or what a Recording has seen of it, has exactly these steps, bit-equal to what `reading` makes."""
    from normkit.readers import Recording

    recording = file if isinstance(file, Recording) else Recording(file)
    np.testing.assert_array_equal(recording.steps, np.fromiter(steps, np.int64))
    for quantity, lines, seed in (("weight", 6, 0), ("grad", 7, 1), ("update", 7, 2)):
        expected = [matrix(step, count, lines, seed)[2] for step in recording.steps]
        found = recording.sums("sq", quantity)
        np.testing.assert_array_equal(found, np.reshape(expected, (len(expected), count)) if expected else found[:0])


def start(code, *args):
    """Another Python that runs `code`, its output as text lines."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    )


def finished(process, seconds=60):
    """Its output; fails where it failed."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    assert err == ""
    return out
