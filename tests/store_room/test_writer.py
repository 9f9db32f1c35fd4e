"""The writer: what was put is in the file, bit for bit."""

import json
import os

import numpy as np
import pytest

from normkit.errors import FileError
from normkit.readers import Recording
from normkit.store import file
from normkit.store.retention import BUDGET
from normkit.store.writer import Writer
from normkit.types import Finding, Param, Reading
from written import assert_holds, matrix, params, reading, rows, write


@pytest.mark.parametrize("count", [0, 1, 3, 200, 1700])
def test_readings_come_back_bit_equal(tmp_path, count):
    assert_holds(write(tmp_path / "a.norms", range(7), count), range(7), count)


def test_assert_holds_can_fail(tmp_path):
    path = write(tmp_path / "a.norms", range(7), 3)
    with pytest.raises(AssertionError):
        assert_holds(path, range(6), 3)


def test_matrices_may_be_reused_by_the_caller(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(3))
    sums = np.zeros((6, 3))
    for step in range(4):
        sums[:] = step
        writer.put(Reading(step, layout, 0.0, {"weight": sums}))
    writer.close()
    assert Recording(writer.path).sums("abs").tolist() == [[step] * 3 for step in range(4)]


@pytest.mark.parametrize("change", [np.asfortranarray, lambda m: m.astype(">f8"), lambda m: m[:, ::-1][:, ::-1]])
def test_any_memory_order_is_taken(tmp_path, change):
    writer = Writer(tmp_path / "a.norms", {})
    writer.put(Reading(0, writer.layout(params(5)), 0.0, {"weight": change(matrix(0, 5, 6))}))
    writer.close()
    np.testing.assert_array_equal(Recording(writer.path).sums("max"), matrix(0, 5, 6)[3:4])


def test_not_a_number_is_stored(tmp_path):
    path = write(tmp_path / "a.norms", [0], 1, scalars={"loss": float("nan"), "lr": float("inf"), "x": float("-inf")})
    recording = Recording(path)
    assert [str(recording.scalar(name)[0]) for name in ("loss", "lr", "x")] == ["nan", "inf", "-inf"]
    assert rows(path, "SELECT scalars FROM record") == [('{"loss": "nan", "lr": "inf", "x": "-inf"}',)]


def test_same_tensors_are_the_same_layout(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    numbers = [writer.layout(params(3)), writer.layout(params(4)), writer.layout(list(params(3)))]
    writer.close()
    assert numbers == [0, 1, 0]
    assert rows(writer.path, "SELECT count(*) FROM tensor") == [(4,)]
    assert rows(writer.path, "SELECT count(*) FROM layout") == [(7,)]


def test_param_comes_back_whole(tmp_path):
    param = Param(
        "wte.weight",
        (50, 8),
        "bfloat16",
        "embedding",
        ("head.weight", "x\udcff"),
        "Embedding",
        (1,),
        (0,),
        False,
        "g",
        "?",
    )
    plain = Param("a'b\0;--\udcff", (), "float64", "other")
    writer = Writer(tmp_path / "a.norms", {})
    writer.layout([param, plain])
    writer.close()
    assert Recording(writer.path).params == (param, Param("a'b\0;--?", (), "float64", "other"))


def test_amend_while_it_waits_and_after(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    seqs = [writer.put(reading(step, layout, 1, scalars={"lr": 0.5})) for step in range(3)]
    writer.amend(seqs[2], {"loss": 2.0})
    writer.amend(seqs[1], {"loss": 1.0})
    writer.flush()
    writer.amend(seqs[0], {"loss": float("nan"), "lr": 0.25})
    writer.amend(99, {"loss": 7.0})
    writer.close()
    recording = Recording(writer.path)
    np.testing.assert_array_equal(recording.scalar("loss"), [np.nan, 1.0, 2.0])
    np.testing.assert_array_equal(recording.scalar("lr"), [0.25, 0.5, 0.5])


def test_meta_events_and_findings(tmp_path):
    found = Finding("dead", "error", "a is 0", "b", ("a",), "theorem", "THEORY", 3, {"limit": 0.5, "seen": [1, 2]})
    writer = Writer(tmp_path / "a.norms", {"a": 1, "b": [1, 2], "c": float("nan"), "d": tmp_path})
    writer.update_meta({"a": np.int64(2), "e": np.float32(0.5), "f": np.arange(2), "g": {"h": (1,)}})
    writer.event("appeared", "head.weight is new", step=np.int64(5), tensor="head.weight")
    writer.event("dropped", "3 records")
    writer.findings([found])
    writer.close()
    recording = Recording(writer.path)
    expected = {"a": 2, "b": [1, 2], "c": "nan", "d": str(tmp_path), "e": 0.5, "f": [0, 1], "g": {"h": [1]}}
    assert recording.meta == expected | {"findings": 1, "budget": BUDGET}
    assert [event[1:] for event in recording.events] == [
        ("appeared", "head.weight is new", 5, "head.weight"),
        ("dropped", "3 records", None, None),
    ]
    assert recording.stored_findings() == recording.findings() == [found]


def test_nothing_found_is_stored_too(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    writer.findings([])
    writer.close()
    assert Recording(writer.path).findings() == []


def test_flush_makes_everything_readable(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(3))
    for step in range(20):
        writer.put(reading(step, layout, 3))
        assert writer.flush() == 0
        assert Recording(writer.path).steps[-1] == step
    writer.close()


def test_close_leaves_one_file_without_a_wal(tmp_path):
    path = write(tmp_path / "a.norms")
    assert os.listdir(tmp_path) == ["a.norms"]
    assert rows(path, "PRAGMA journal_mode") == [("delete",)]
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


def test_closing_twice_and_calls_after_it_do_nothing(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    writer.close()
    before = writer.path.read_bytes()
    writer.close()
    assert writer.put(reading(0, layout, 1)) == writer.amend(0, {}) == writer.event("a", "b") == writer.flush() == -1
    assert writer.path.read_bytes() == before
    assert writer.error is None


@pytest.mark.parametrize(("count", "page"), [(1, 4096), (102, 4096), (103 * 4, 16384), (1700, 65536)])
def test_pages_suit_the_rows(tmp_path, count, page):
    assert rows(write(tmp_path / "a.norms", [0], count), "PRAGMA page_size") == [(page,)]


def test_file_of_a_tiny_model_is_small(tmp_path):
    assert write(tmp_path / "a.norms", [0], 1).stat().st_size <= 48 << 10


def test_pages_stay_where_somebody_reads_already(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    import sqlite3

    reader = sqlite3.connect(writer.path)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    writer.put(reading(0, writer.layout(params(1700)), 1700))
    writer.flush()
    reader.close()
    writer.close()
    assert writer.error is None
    assert_holds(writer.path, [0], 1700)
    assert rows(writer.path, "PRAGMA page_size") == [(file.PAGES[-1],)]


def test_file_with_content_is_refused(tmp_path):
    path = tmp_path / "a.norms"
    path.write_text("precious")
    with pytest.raises(
        FileError, match=r"'.*a\.norms' holds something already; a recording begins in a file of its own"
    ):
        Writer(path, {})
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["", "absent/a.norms"])
def test_path_that_cannot_be_begun_is_refused(tmp_path, name):
    with pytest.raises(FileError, match=r"the recording '.*' cannot be begun \(.*\); give another path by to="):
        Writer(tmp_path / name, {})


def test_json_is_what_sqlite_reads(tmp_path):
    path = write(tmp_path / "a.norms", [0], 1, meta={"x": float("inf"), "y": "é"})
    assert dict(rows(path, "SELECT key, json(value) FROM meta WHERE key IN ('x', 'y')")) == {
        "x": '"inf"',
        "y": json.dumps("é"),
    }
