"""Rows of a recording as csv and Parquet: every value as the recording has it."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

import made_up
from normkit.errors import ArgumentError, FileError
from normkit.readers import load
from normkit.sinks import comma, parquet
from normkit.sinks.fresh import fresh
from normkit.sinks.tidy import COUNTS, HEADER, LENGTHS, blocks
from normkit.types import QUANTITIES

NAMES = ["größe,m.weight", 'a"b\n.bias', "r\rr.bias", "scale", "conv.weight", "conv.weight.g", "conv.weight.v"]
LAYERS = ["größe,m", 'a"b\n', "r\rr", "", "conv", "conv", "conv"]
WEIGHTS = ["weight", "bias", "bias", "scale", "weight", "weight.g", "weight.v"]


@pytest.fixture
def recording(tmp_path):
    """Hostile names, a weight with parts, a NaN, an infinity, and a tensor that comes late."""
    parts = ["whole"] * 4 + ["effective", "g", "v"]
    params = [made_up.param(name, (3, 2), "kernel", part=part) for name, part in zip(NAMES, parts, strict=True)]
    run = made_up.trained(params, [0, 1, 2, 10], lambda name, t: 1 + t / 3)
    run.weights[1][0] = np.full((3, 2), np.nan)
    run.weights[2][0] = np.array([[np.inf, 0.0]] * 3)
    run.weights[0][1] = None
    return load(made_up.write(run, tmp_path / "run.norms"))


def csv_rows(recording, **options):
    stream = io.BytesIO()
    count = comma.write(blocks(recording, **options), stream)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue().decode(), newline="")))
    assert len(rows) == count
    return rows


def expected(recording):
    """(tensor, quantity, step) -> the norms, for all that was there."""
    matrices = {(kind, word): recording.matrix(kind, word) for word in QUANTITIES for kind in (*LENGTHS, *COUNTS)}
    return {
        (name, word, int(step)): [matrices[kind, word][k, n] for kind in (*LENGTHS, *COUNTS)]
        for n, name in enumerate(recording.tensors)
        for word in QUANTITIES
        for k, step in enumerate(recording.steps)
        if not math.isnan(matrices["nonfinite", word][k, n])
    }


def assert_rows_are(rows, recording):
    """Every row's norms are the recording's own, to the bit, and none is missing or doubled."""
    wanted = expected(recording)
    assert len(rows) == len(wanted)
    for row in rows:
        values = [float(row[kind]) for kind in (*LENGTHS, *COUNTS)]
        np.testing.assert_array_equal(values, wanted[row["tensor"], row["quantity"], int(row["step"])])


def test_assert_rows_are_can_fail(recording):
    rows = csv_rows(recording)
    rows[3]["l2"] = repr(math.nextafter(float(rows[3]["l2"]), 9))
    with pytest.raises(AssertionError):
        assert_rows_are(rows, recording)


def test_csv_has_every_value(recording):
    rows = csv_rows(recording)
    assert tuple(rows[0]) == HEADER
    assert_rows_are(rows, recording)
    assert [(row["l2"], row["nonfinite"]) for row in rows[1:3]] == [("nan", "6"), ("inf", "3")]
    assert rows[0]["epoch"] == ""


def test_csv_leaves_out_what_was_not_there(recording):
    there = [(row["quantity"], row["step"]) for row in csv_rows(recording) if row["tensor"] == NAMES[1]]
    assert ("weight", "0") not in there
    assert ("weight", "1") in there
    assert ("grad", "0") not in there


def test_layer_and_weight_of_each_name(recording):
    found = {row["tensor"]: (row["layer"], row["weight"]) for row in csv_rows(recording)}
    assert list(found.items()) == list(zip(NAMES, zip(LAYERS, WEIGHTS, strict=True), strict=True))


def test_blocks_of_selected_tensors(recording):
    assert {row["tensor"] for row in csv_rows(recording, select={"scale"})} == {"scale"}
    assert csv_rows(recording, select=set()) == []


def test_csv_lines_end_alike(recording):
    stream = io.BytesIO()
    comma.write(blocks(recording, select={"scale"}), stream)
    assert b"\r" not in stream.getvalue()
    assert stream.getvalue().endswith(b"\n")


def test_parquet_has_every_value_sorted(recording, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    with fresh(tmp_path / "run.parquet") as stream:
        count = parquet.write(blocks(recording, ordered=True), stream)
    table = pq.read_table(tmp_path / "run.parquet")
    rows = table.to_pylist()
    assert (table.column_names, len(rows)) == (list(HEADER), count)
    assert_rows_are(rows, recording)
    order = [(row["tensor"], row["quantity"], row["step"]) for row in rows]
    assert order == sorted(order)
    assert rows[0]["epoch"] is None
    assert {row["tensor"]: (row["layer"], row["weight"]) for row in rows} == dict(
        zip(NAMES, zip(LAYERS, WEIGHTS, strict=True), strict=True)
    )


def test_parquet_is_packed_as_said(recording, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    with fresh(tmp_path / "run.parquet") as stream:
        parquet.write(blocks(recording, ordered=True), stream)
    group = pq.ParquetFile(tmp_path / "run.parquet").metadata.row_group(0)
    l2 = group.column(HEADER.index("l2"))
    assert (l2.compression, "BYTE_STREAM_SPLIT" in l2.encodings) == ("ZSTD", True)
    assert [HEADER[each.column_index] for each in group.sorting_columns] == ["tensor", "quantity", "step"]


def test_fresh_leaves_nothing_behind_on_error(tmp_path):
    def broken():
        yield from ()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), fresh(tmp_path / "x.csv") as stream:
        comma.write(broken(), stream)
    assert list(tmp_path.iterdir()) == []


def test_fresh_says_why_it_cannot_write(tmp_path):
    with pytest.raises(FileError, match=r"cannot write '.*x\.csv': No space left"), fresh(tmp_path / "x.csv"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_fresh_does_not_overwrite(tmp_path):
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(ArgumentError, match="is there already and stays as it is"), fresh(tmp_path / "x.csv"):
        pass
    assert (tmp_path / "x.csv").read_text() == "mine"
