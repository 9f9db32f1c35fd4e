"""A CSV file that grows a step at a time: what others read of it at any moment, and what it goes on with."""

import csv
import io
import sys

import numpy as np
import pytest

import made_up
from normkit.errors import ArgumentError, FileError
from normkit.readers import load
from normkit.sinks import comma
from normkit.sinks.slices import slices
from normkit.sinks.table import HEAD, Table
from normkit.sinks.tidy import COUNTS, HEADER, LENGTHS, blocks
from normkit.types import QUANTITIES
from slice_made import alone, made, params

KINDS = (*LENGTHS, *COUNTS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "live.csv"


def rows_of(path):
    """Rows as dicts; asserts that no line is half of one."""
    text = path.read_bytes().decode()
    assert text.endswith("\n")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def steps_of(path):
    return list(dict.fromkeys(int(row["step"]) for row in rows_of(path)))


def write(path, parts, **how):
    table = Table(path, **how)
    for part in parts:
        table.put(part)
    table.close()


def test_a_new_table_has_its_header_at_once(path):
    table = Table(path)
    assert path.read_bytes() == HEAD == (",".join(HEADER) + "\n").encode()
    table.close()


def test_each_step_is_there_as_soon_as_it_is_put(path):
    table = Table(path)
    for step in (0, 5, 7):
        table.put(made(step, params()))
        assert steps_of(path)[-1] == step
    table.close()


def test_the_rows_are_those_of_an_export(path, tmp_path):
    """Hostile names, not finite numbers, tensors that come late, epochs: each row of an export, ordered by step."""
    names = ["größe,m.weight", 'a"b\n.bias', "r\rr.bias", "scale"]
    run = made_up.trained([made_up.param(name, (3, 2), "kernel") for name in names], [0, 1, 9], lambda name, t: 1 + t)
    run.weights[1][0] = np.full((3, 2), np.nan)
    run.weights[2][0] = np.array([[np.inf, 0.0]] * 3)
    run.weights[0][1] = None
    recording = load(made_up.write(run, tmp_path / "run.norms"))
    write(path, slices(recording, KINDS, {word: recording.matrix("nonfinite", word) for word in QUANTITIES}))
    stream = io.BytesIO()
    comma.write(blocks(recording), stream)
    exported = list(csv.DictReader(io.StringIO(stream.getvalue().decode(), newline="")))
    key = lambda row: (int(row["step"]), row["tensor"], row["quantity"])  # noqa: E731
    assert sorted(rows_of(path), key=key) == sorted(exported, key=key)
    assert [int(row["step"]) for row in rows_of(path)] == sorted(int(row["step"]) for row in exported)


def test_tensors_may_come_and_go(path):
    write(path, [made(0, params(["a.w", "b.w"])), made(1, params(["b.w", "c.w", "d.w"])), made(2, params(["a.w"]))])
    assert [(row["step"], row["tensor"]) for row in rows_of(path)] == [
        *(("0", name) for name in ("a.w", "b.w")),
        *(("1", name) for name in ("b.w", "c.w", "d.w")),
        ("2", "a.w"),
    ]


def test_layer_and_weight_stand_beside_the_tensor(path):
    write(path, [made(0, params(["block.conv1.weight"]), epoch=3)])
    (row,) = rows_of(path)
    assert (row["tensor"], row["layer"], row["weight"], row["epoch"]) == (
        "block.conv1.weight",
        "block.conv1",
        "weight",
        "3",
    )


def test_what_has_no_gradient_has_no_row_of_it(path):
    write(path, [made(1, params(), quantities=("weight", "grad"), lacking=[1])])
    assert [row["tensor"] for row in rows_of(path) if row["quantity"] == "grad"] == ["conv1.weight", "fc.weight"]


def test_a_step_that_comes_again_replaces_itself(path):
    of = params()
    write(path, [made(0, of), made(1, of), made(1, of, quantities=QUANTITIES), made(2, of)])
    assert [row["quantity"] for row in rows_of(path) if row["step"] == "1"] == list(QUANTITIES) * 3
    assert steps_of(path) == [0, 1, 2]


def test_scalars_alone_are_no_rows(path):
    write(path, [made(0, params()), alone(0, loss=1.0)])
    assert len(rows_of(path)) == 3


@pytest.mark.parametrize(("first", "left"), [(0, []), (3, [0, 2]), (4, [0, 2]), (6, [0, 2, 4]), (100, [0, 2, 4, 6])])
def test_a_resumed_run_replaces_the_steps_from_its_first_on(path, first, left):
    of = params(["a.w", 'b\n"7,8".w'])
    write(path, [made(step, of) for step in (0, 2, 4, 6)])
    write(path, [made(first, of), made(first + 1, of)], resumed=True)
    assert steps_of(path) == [*left, first, first + 1]
    assert len(rows_of(path)) == 2 * (len(left) + 2)


def test_half_a_line_that_a_killed_run_left_goes(path):
    of = params()
    write(path, [made(step, of) for step in (0, 1)])
    path.write_bytes(path.read_bytes()[:-7])
    write(path, [made(1, of), made(2, of)], resumed=True)
    assert [row["step"] for row in rows_of(path)] == ["0"] * 3 + ["1"] * 3 + ["2"] * 3


def test_nothing_but_a_table_is_gone_on_with(path):
    path.write_text("epoch,loss\n1,2\n")
    with pytest.raises(
        ArgumentError, match=r"^csv='.*live.csv' is not a table that normkit wrote; give the run another"
    ):
        Table(path, resumed=True)
    assert path.read_text() == "epoch,loss\n1,2\n"


def test_an_existing_file_is_never_begun_again(path):
    path.write_text("mine")
    with pytest.raises(FileError, match=r"^csv='.*live.csv' cannot be written \(File exists\); give another path"):
        Table(path)
    assert path.read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_a_full_disk_leaves_whole_rows(path):
    import resource
    import signal

    of = params()
    table = Table(path)
    table.put(made(0, of))
    size = path.stat().st_size
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            table.put(made(1, of))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (steps_of(path), path.stat().st_size) == ([0], size)
    table.close()
