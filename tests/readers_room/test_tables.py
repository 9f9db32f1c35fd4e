"""`to_pandas` and `to_arrow`: every value of the recording, in types that a user of either expects."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import made_up
import written
from normkit.errors import ArgumentError
from normkit.readers import load
from normkit.sinks.tidy import COUNTS, HEADER, LENGTHS, WORDS
from normkit.types import QUANTITIES

STEPS = [0, 1, 2, 10]


@pytest.fixture
def recording(tmp_path):
    """Two layers, the second ahead of the first by alphabet; a NaN, and a tensor that comes late."""
    params = [made_up.param(name, (3, 2), "kernel") for name in ("fc.weight", "conv.weight", "scale")]
    run = made_up.trained(params, STEPS, lambda name, t: 1 + t / 3)
    run.weights[1][0] = np.full((3, 2), np.nan)
    run.weights[0][1] = None
    return load(made_up.write(run, tmp_path / "run.norms"))


def as_rows(recording, kind, **options):
    """The rows of either table as dicts of Python's own values."""
    if kind == "arrow":
        pytest.importorskip("pyarrow", reason="an Arrow table needs it")
        return recording.to_arrow(**options).to_pylist()
    pd = pytest.importorskip("pandas", reason="a DataFrame needs it")
    rows = recording.to_pandas(**options).to_dict("records")
    return [row | {"epoch": None if row["epoch"] is pd.NA else row["epoch"]} for row in rows]


def assert_rows_are(rows, recording, quantities=QUANTITIES):
    """Each value is that of the recording, bit for bit, and nothing is left out."""
    matrices = {(kind, word): recording.matrix(kind, word) for word in QUANTITIES for kind in (*LENGTHS, *COUNTS)}
    wanted = [
        (int(step), name, word, *(matrices[kind, word][k, n] for kind in (*LENGTHS, *COUNTS)))
        for n, name in enumerate(recording.tensors)
        for word in quantities
        for k, step in enumerate(recording.steps)
        if not np.isnan(matrices["nonfinite", word][k, n])
    ]
    found = [tuple(row[name] for name in ("step", "tensor", "quantity", *LENGTHS, *COUNTS)) for row in rows]
    assert [row[:3] for row in found] == [row[:3] for row in wanted]
    np.testing.assert_array_equal([row[3:] for row in found], [row[3:] for row in wanted])


def test_assert_rows_are_can_fail(recording):
    rows = as_rows(recording, "pandas")
    rows[2]["l2"] = np.nextafter(rows[2]["l2"], 9)
    with pytest.raises(AssertionError):
        assert_rows_are(rows, recording)


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_every_value_is_there(kind, recording):
    rows = as_rows(recording, kind)
    assert tuple(rows[0]) == HEADER
    assert_rows_are(rows, recording)
    assert {(row["tensor"], row["layer"], row["weight"]) for row in rows} == {
        ("fc.weight", "fc", "weight"),
        ("conv.weight", "conv", "weight"),
        ("scale", "", "scale"),
    }
    assert {row["epoch"] for row in rows} == {None}


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
@pytest.mark.parametrize("quantities", ["grad", ["update", "weight"]])
def test_some_quantities(kind, quantities, recording):
    chosen = [word for word in QUANTITIES if word in quantities]
    assert_rows_are(as_rows(recording, kind, quantities=quantities), recording, chosen)


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_some_tensors(kind, recording):
    rows = as_rows(recording, kind, select=["*.weight", "!fc.*"])
    assert {row["tensor"] for row in rows} == {"conv.weight"}


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_a_recording_without_records_has_the_same_columns(kind, tmp_path):
    recording = load(written.write(tmp_path / "run.norms", steps=[]))
    table = getattr(recording, f"to_{kind}")()
    assert tuple(table.columns if kind == "pandas" else table.column_names) == HEADER
    assert len(table) == 0


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_epochs_that_are_known_in_part(kind, tmp_path):
    run = made_up.trained([made_up.param("w.weight", (3,))], STEPS, lambda name, t: 1 + t)
    path = made_up.write(run, tmp_path / "run.norms")
    written.change(path, "UPDATE record SET epoch = 2 WHERE step >= 2")
    rows = as_rows(load(path), kind, quantities="weight")
    assert [row["epoch"] for row in rows] == [None, None, 2, 2]
    assert type(rows[2]["epoch"]) is int


def test_pandas_gets_its_own_types(recording):
    pd = pytest.importorskip("pandas", reason="a DataFrame needs it")
    frame = recording.to_pandas()
    kinds = {"step": "int64", "epoch": "Int64", **dict.fromkeys(WORDS, "category")}
    kinds |= dict.fromkeys(LENGTHS, "float64") | dict.fromkeys(COUNTS, "int64")
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == kinds
    assert list(frame["tensor"].cat.categories) == list(recording.tensors)
    curves = frame[frame["quantity"] == "weight"].pivot(index="step", columns="tensor", values="l2")
    assert isinstance(curves, pd.DataFrame)
    np.testing.assert_array_equal(curves["scale"], recording.series("scale"))
    frame.loc[0, "l2"] = 7.0  # it is the user's own
    assert recording.to_pandas().loc[0, "l2"] != 7.0


def test_pandas_does_without_pyarrow(recording, monkeypatch):
    pytest.importorskip("pandas", reason="a DataFrame needs it")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert len(recording.to_pandas()) == len(as_rows(recording, "pandas"))


@pytest.mark.parametrize(
    ("kind", "library", "sentence"),
    [
        ("pandas", "pandas", r"^to_pandas\(\) needs pandas \(.*\); `pip install 'normkit\[pandas\]'` brings it$"),
        ("arrow", "pyarrow", r"^to_arrow\(\) needs pyarrow \(.*\); `pip install 'normkit\[parquet\]'` brings it$"),
    ],
)
def test_a_missing_library_is_a_sentence(kind, library, sentence, recording, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ArgumentError, match=sentence):
        getattr(recording, f"to_{kind}")()


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"quantities": "weights"}, r"^quantities='weights': expected some of 'weight', 'grad', 'update'$"),
        ({"quantities": []}, r"^quantities=\[\]: expected some of 'weight', 'grad', 'update'$"),
        ({"quantities": ["grad", "g"]}, r"^quantities=\['grad', 'g'\]: expected some of"),
        ({"select": "cnv*"}, r"^select='cnv\*' matches none of 3 parameters; close names: conv.weight$"),
    ],
)
def test_what_is_not_there_is_a_sentence(kind, options, sentence, recording):
    pytest.importorskip({"pandas": "pandas", "arrow": "pyarrow"}[kind], reason="it makes the table")
    with pytest.raises(ArgumentError, match=sentence):
        getattr(recording, f"to_{kind}")(**options)
