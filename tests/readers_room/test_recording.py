"""A recording, read: every number against what was written."""

import os
from pathlib import Path

import numpy as np
import pytest

import normkit
from normkit.errors import ArgumentError, FileError
from normkit.readers import Recording, latest, load
from normkit.store.writer import Writer
from normkit.types import Param, Reading
from written import matrix, params, reading, rows, write

FORMULAS = {  # norm -> formula over the sums [6][...] and the count, apart from the room `norms`
    "l1": lambda s, n: s[1],
    "l2": lambda s, n: s[2] ** 0.5,
    "linf": lambda s, n: s[3],
    "rms": lambda s, n: (s[2] / n) ** 0.5,
    "mean": lambda s, n: s[0] / n,
    "std": lambda s, n: (s[2] / n - (s[0] / n) ** 2) ** 0.5,
    "zeros": lambda s, n: s[4],
    "nonfinite": lambda s, n: s[5],
}
SEEDS = {"weight": (6, 0), "grad": (7, 1), "update": (7, 2)}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("read") / "a.norms", range(0, 50, 5), 12, scalars={"lr": 0.1})


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("quantity", SEEDS)
def test_matrix_and_series_are_the_norms_of_what_was_put(path, kind, quantity):
    lines, seed = SEEDS[quantity]
    sums = np.stack([matrix(step, 12, lines, seed) for step in range(0, 50, 5)], axis=1)
    expected = FORMULAS[kind](sums, 12)
    recording = Recording(path)
    np.testing.assert_allclose(recording.matrix(kind, quantity), expected, rtol=1e-14)
    np.testing.assert_array_equal(
        recording.series("layer.7.weight", kind, quantity), recording.matrix(kind, quantity)[:, 7]
    )


@pytest.mark.parametrize("name", ["frobenius", "fro", "L2"])
def test_other_names_of_a_norm_are_taken(path, name):
    np.testing.assert_array_equal(Recording(path).matrix(name), Recording(path).matrix("l2"))


def test_defaults_are_l2_of_the_weight(path):
    recording = Recording(path)
    np.testing.assert_array_equal(recording.matrix(), recording.matrix("l2", "weight"))
    np.testing.assert_array_equal(recording.series("layer.0.weight"), recording.matrix()[:, 0])


def test_answers_may_be_changed_by_the_caller(path):
    recording = Recording(path)
    expected = [Recording(path).matrix(), recording.steps.copy(), recording.walls.copy()]
    for array in (recording.matrix(), recording.series("layer.0.weight"), recording.steps, recording.walls):
        array[:] = -1
    for array, before in zip((recording.matrix(), recording.steps, recording.walls), expected, strict=True):
        np.testing.assert_array_equal(array, before)


def test_what_it_says_of_the_run(path):
    recording = Recording(path)
    assert recording.path == path
    assert len(recording) == 10
    assert recording.steps.tolist() == list(range(0, 50, 5))
    assert recording.steps.dtype == np.int64
    assert recording.walls.tolist() == [1.7e9 + step for step in range(0, 50, 5)]
    assert np.isnan(recording.epochs).all()
    assert recording.params == params(12)
    assert recording.tensors == tuple(param.name for param in params(12))
    assert recording.meta == {"framework": "made up", "budget": 256 << 20}
    assert recording.events == recording.stored_findings() == []


def test_repr_says_what_is_in_it(path):
    said = f"<Recording {str(path)!r}: 10 records x 12 tensors, steps 0 to 45, not finished>"
    assert repr(Recording(path)) == said


def test_repr_of_an_empty_and_of_a_finished_one(tmp_path):
    assert "0 records x 3 tensors, no step yet, finished>" in repr(
        Recording(write(tmp_path / "a.norms", [], meta={"end": "finished"}))
    )


def test_recording_without_records_has_empty_arrays(tmp_path):
    recording = Recording(write(tmp_path / "a.norms", []))
    assert recording.steps.shape == recording.series("layer.0.weight").shape == (0,)
    assert recording.matrix("rms", "grad").shape == (0, 3)
    assert recording.scalar_names == ()


def test_epochs_are_nan_where_unknown(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    for step, epoch in enumerate([None, 0, np.int64(1)]):
        writer.put(reading(step, layout, 1, epoch=epoch))
    writer.close()
    np.testing.assert_array_equal(Recording(writer.path).epochs, [np.nan, 0, 1])


def test_quantity_that_was_not_recorded_is_nan(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(2))
    writer.put(Reading(0, layout, 0.0, {"weight": matrix(0, 2, 6)}))
    writer.put(reading(1, layout, 2))
    writer.close()
    recording = Recording(writer.path)
    assert np.isnan(recording.matrix("l2", "grad")).tolist() == [[True, True], [False, False]]
    assert np.isfinite(recording.matrix()).all()
    assert set(recording.at(0)["layer.0.weight"]) == {"weight"}


def test_dot_is_nan_where_there_is_no_row_for_it(path):
    recording = Recording(path)
    assert np.isnan(recording.sums("dot", "weight")).all()
    np.testing.assert_array_equal(recording.sums("dot", "grad")[2], matrix(10, 12, 7, 1)[6])


def test_column_of_nan_means_there_was_none(tmp_path):
    sums = matrix(0, 3, 7)
    sums[:, 1] = np.nan
    sums[:4, 2] = np.nan  # a gradient of NaN: its counts are numbers
    writer = Writer(tmp_path / "a.norms", {})
    writer.put(Reading(0, writer.layout(params(3)), 0.0, {"grad": sums}))
    writer.close()
    recording = Recording(writer.path)
    assert [list(recording.at(0)[name]) for name in recording.tensors] == [["grad"], [], ["grad"]]
    for kind in FORMULAS:
        assert np.isnan(recording.matrix(kind, "grad")[0, 1])
    assert recording.matrix("nonfinite", "grad")[0, 2] == sums[5, 2]
    assert np.isnan(recording.matrix("l2", "grad")[0, 2])


def test_at_gives_the_sums_themselves(path):
    stats = Recording(path).at(15)["layer.3.weight"]
    assert list(stats) == ["weight", "grad", "update"]
    expected = matrix(15, 12, 7, 1)[:, 3]
    grad = stats["grad"]
    assert grad.count == 12
    assert [grad.sum, grad.abs, grad.sq, grad.max, grad.dot] == expected[[0, 1, 2, 3, 6]].tolist()
    assert (grad.zeros, grad.nonfinite) == (int(expected[4]), int(expected[5]))
    assert np.isnan(stats["weight"].dot)


def test_scalars_are_nan_where_not_logged(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    for step, scalars in enumerate([{"lr": 0.1}, {"loss": 2.0, "lr": 0.2}, {}]):
        writer.put(reading(step, layout, 1, scalars=scalars))
    writer.close()
    recording = Recording(writer.path)
    assert recording.scalar_names == ("lr", "loss")
    np.testing.assert_array_equal(recording.scalar("loss"), [np.nan, 2.0, np.nan])
    np.testing.assert_array_equal(recording.scalar("lr"), [0.1, 0.2, np.nan])


def test_last_of_several_records_of_a_step_counts(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(2))
    for step, wall in [(0, 1), (3, 2), (1, 3), (3, 4), (2, 5)]:
        writer.put(reading(step, layout, 2, wall=float(wall), values={"weight": np.full((6, 2), float(wall))}))
    writer.close()
    recording = Recording(writer.path)
    assert recording.steps.tolist() == [0, 1, 2, 3]
    assert recording.walls.tolist() == [1, 3, 5, 4]
    assert recording.sums("sq")[:, 0].tolist() == [1, 3, 5, 4]
    assert recording.at(3)["layer.0.weight"]["weight"].sq == 4


def test_later_attempt_replaces_all_from_its_first_step_on(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(1))
    for attempt, steps in enumerate([[0, 10, 20, 30], [20, 25], [22]]):
        for step in steps:
            writer.put(reading(step, layout, 1, attempt=attempt, wall=float(attempt)))
    writer.close()
    recording = Recording(writer.path)
    assert recording.steps.tolist() == [0, 10, 20, 22]
    assert recording.walls.tolist() == [0, 0, 1, 2]


def test_layouts_are_joined_by_name(tmp_path):
    old = (Param("a", (2,), "float32", "bias"), Param("b", (3,), "float32", "bias"))
    new = (Param("c", (5,), "float32", "bias"), Param("a", (8,), "float32", "bias"))
    writer = Writer(tmp_path / "a.norms", {})
    for step, listed in enumerate([old, new, old, new]):
        writer.put(reading(step, writer.layout(listed), 2))
    writer.close()
    recording = Recording(writer.path)
    assert recording.tensors == ("a", "b", "c")
    assert recording.params == (new[1], old[1], new[0])
    found = recording.matrix("rms")
    sums = [matrix(step, 2, 6)[2] for step in range(4)]
    np.testing.assert_allclose(found[:, 0] ** 2, [sums[0][0] / 2, sums[1][1] / 8, sums[2][0] / 2, sums[3][1] / 8])
    np.testing.assert_allclose(found[:, 1] ** 2, [sums[0][1] / 3, np.nan, sums[2][1] / 3, np.nan])
    np.testing.assert_allclose(found[:, 2] ** 2, [np.nan, sums[1][0] / 5, np.nan, sums[3][0] / 5])
    assert recording.at(1).keys() == {"c", "a"}
    assert recording.at(1)["a"]["weight"].count == 8


def test_columns_of_groups_are_left_to_later_versions(tmp_path):
    """Per-row values will stand beside whole tensors; they are no tensor's value."""
    from written import change

    path = write(tmp_path / "a.norms", [0], 3)
    change(path, 'UPDATE layout SET "group" = 0 WHERE position = 1')
    recording = Recording(path)
    assert recording.tensors == ("layer.0.weight", "layer.2.weight")
    np.testing.assert_array_equal(recording.sums("abs"), matrix(0, 3, 6)[1:2, [0, 2]])
    assert recording.at(0)["layer.2.weight"]["weight"].abs == matrix(0, 3, 6)[1, 2]


def test_refresh_sees_what_came_since(tmp_path):
    writer = Writer(tmp_path / "a.norms", {})
    layout = writer.layout(params(2))
    writer.put(reading(0, layout, 2, scalars={"lr": 1.0}))
    writer.flush()
    recording = Recording(writer.path)
    before = recording.matrix()
    recording.scalar("lr")
    writer.put(reading(1, layout, 2, scalars={"lr": 2.0}))
    writer.close()
    np.testing.assert_array_equal(recording.matrix(), before)
    assert recording.refresh() is recording
    assert recording.matrix().shape == (2, 2)
    assert recording.scalar("lr").tolist() == [1.0, 2.0]


def test_reading_leaves_nothing_behind(tmp_path):
    path = write(tmp_path / "a.norms")
    before = path.read_bytes()
    recording = Recording(path)
    recording.matrix()
    recording.at(0)
    assert os.listdir(tmp_path) == ["a.norms"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (
            lambda r: r.series("layer.0.weigth"),
            r"there is no tensor 'layer.0.weigth'; did you mean 'layer.0.weight' or",
        ),
        (lambda r: r.series("zzz"), r"there is no tensor 'zzz'; there are 'layer.0.weight', .* and 4 more"),
        (lambda r: r.matrix("l3"), "'l3'"),
        (lambda r: r.matrix(2), "2"),
        (
            lambda r: r.matrix("spectral"),
            "'spectral' does not follow from the sums that a recording keeps; 'l1', 'l2', .* do",
        ),
        (lambda r: r.matrix("l2", "gradient"), r"there is no quantity 'gradient'; did you mean 'grad'\?"),
        (lambda r: r.matrix("l2", "momentum"), "there is no quantity 'momentum'; there are 'weight', 'grad', 'update'"),
        (lambda r: r.sums("cube"), "there is no sum 'cube'; there are 'sum', 'abs'"),
        (lambda r: r.scalar("lrs"), r"there is no scalar 'lrs'; did you mean 'lr'\?"),
        (lambda r: r.at(7), r"step=7 was not recorded in '.*a\.norms'; the nearest that were: \[5, 10\]"),
        (lambda r: r.at(700), r"step=700 was not recorded .*: \[45\]"),
    ],
)
def test_unknown_words_are_refused(path, ask, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        ask(Recording(path))


def test_load_and_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (
        write(Path("runs") / f"{name}.norms") for name in "ab" if os.makedirs("runs", exist_ok=True) is None
    )
    Path("runs/reserved.norms").touch()
    Path("runs/folder.norms").mkdir()
    Path("runs/other.txt").write_text("x")
    os.utime(first, (2e9, 2e9))
    os.utime(second, (1.9e9, 1.9e9))
    assert latest() == first
    assert normkit.load().path == first
    assert load(second).path == second
    Path(f"{second}-wal").touch()
    os.utime(f"{second}-wal", (2.1e9, 2.1e9))
    assert latest("runs") == second


@pytest.mark.parametrize("folder", ["", "absent"])
def test_latest_where_there_is_none(tmp_path, folder):
    with pytest.raises(FileError, match=r"there is no recording in '.*'; `normkit run script.py` makes one"):
        latest(tmp_path / folder)


def test_rows_of_the_file_are_as_the_page_says(path):
    """Another program needs no normkit: one sum of all tensors is contiguous."""
    (blob,) = rows(path, "SELECT grad FROM sums WHERE seq = 2")[0]
    np.testing.assert_array_equal(np.frombuffer(blob, "<f8").reshape(7, 12), matrix(10, 12, 7, 1))
