"""Curves for TensorBoard, read back with its own reader."""

import numpy as np
import pytest

import board
import made_up
from normkit.sinks import tensorboard
from normkit.sinks.tensorboard import EventFile, begun_by_normkit, largest
from slice_made import alone, made, params

ALL = ("weight", "grad", "update")


def write(folder, parts, **how):
    sink = EventFile(folder, **how)
    for part in parts:
        sink.put(part)
    sink.close()
    return board.curves(folder)


def cut(part, *kinds):
    """The slice with these norms alone, as a sink is given it."""
    norms = {word: {kind: values[kind] for kind in kinds} for word, values in part.norms.items()}
    return type(part)(**{**vars(part), "norms": norms})


def test_tags_are_layer_weight_norm(tmp_path):
    of = params(["conv1.weight"])
    found = write(tmp_path, [cut(made(3, of, quantities=ALL, scalars={"loss": 2.0}, figures={"zeros": 0.5}), "l2")])
    assert set(found) == {
        "conv1/weight/l2",
        "conv1/weight/grad/l2",
        "conv1/weight/update/l2",
        "loss",
        "normkit/zeros",
    }
    assert found["loss"] == [(3, 1.7e9 + 3, 2.0)]


def test_every_value_reads_back(tmp_path):
    of = params()
    parts = [cut(made(step, of, quantities=ALL, lacking=[1]), "l1", "l2") for step in (0, 1, 300, 70_000)]
    found = write(tmp_path, parts, norms=("l1", "l2"))
    assert len(found) == 2 * (3 + 2 + 2)  # the bias has no gradient and no update
    for place, name in enumerate(("conv1/weight", "conv1/bias", "fc/weight")):
        for kind in ("l1", "l2"):
            expected = [(part.step, part.wall, np.float32(part.norms["weight"][kind][place])) for part in parts]
            assert found[f"{name}/{kind}"] == expected


def test_a_nan_is_stored_and_what_is_not_there_is_not(tmp_path):
    of = params()
    part = cut(made(1, of, quantities=("weight", "grad"), lacking=[0]), "l2")
    part.norms["weight"]["l2"][1] = np.nan
    found = write(tmp_path, [part])
    assert np.isnan(found["conv1/bias/l2"][0].value)
    assert "conv1/weight/grad/l2" not in found


def test_tensors_may_come_and_go(tmp_path):
    parts = [cut(made(step, params(names)), "l2") for step, names in enumerate([["a", "b"], ["b", "c"], ["a"]])]
    steps = {tag: [point.step for point in points] for tag, points in write(tmp_path, parts).items()}
    assert steps == {"a/l2": [0, 2], "b/l2": [0, 1], "c/l2": [1]}


def test_there_is_one_file_and_one_event_per_step(tmp_path):
    of = params()
    write(tmp_path, [cut(made(step, of), "l2") for step in range(5)])
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    assert len(list(RawEventFileLoader(str(file)).Load())) == 1 + 5


def test_a_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    of = params(["w"])
    write(tmp_path, [cut(made(step, of, scalars={"run": 1.0}), "l2") for step in range(6)])
    found = write(tmp_path, [cut(made(step, of, scalars={"run": 2.0}), "l2") for step in range(4, 8)], resumed=True)
    assert [(point.step, point.value) for point in found["run"]] == [(s, 1.0 if s < 4 else 2.0) for s in range(8)]


def test_a_long_run_is_thinned_and_keeps_its_last_step(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "FULL", 4)
    of = params(["w"])
    found = write(tmp_path / "thin", [cut(made(step, of), "l2") for step in range(20)])
    steps = [point.step for point in found["w/l2"]]
    assert steps == [0, 1, 2, 3, 5, 7, 9, 11, 15, 19]
    whole = write(tmp_path / "whole", [cut(made(step, of), "l2") for step in range(20)], thinned=False)
    assert len(whole["w/l2"]) == 20


def test_scalars_that_come_alone_follow_their_step(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard, "FULL", 1)
    of = params(["w"])
    parts = []
    for step in range(4):
        parts += [cut(made(step, of), "l2"), alone(step, loss=step)]
    found = write(tmp_path, parts)
    assert [point.step for point in found["loss"]] == [point.step for point in found["w/l2"]][: len(found["loss"])]
    assert len(found["loss"]) < 4


@pytest.mark.parametrize(("most", "places"), [(None, [0, 1, 2]), (3, [0, 1, 2]), (2, [1, 2]), (1, [2])])
def test_the_largest_have_curves(most, places):
    of = [made_up.param("a", (2,)), made_up.param("b", (3,)), made_up.param("c", (9,))]
    assert largest(of, range(3), most).tolist() == places
    assert largest(of, [0, 1], most).tolist() == ([1] if most == 1 else [0, 1])


def test_most_tensors_have_none_of_their_own_in_a_big_model(tmp_path):
    of = params([f"blocks.{n}.weight" for n in range(5000)])
    found = write(tmp_path, [cut(made(0, of, quantities=ALL, figures={"weight_l2": 3.0}), "l2")], most=200)
    assert len(found) == 3 * 200 + 1


def test_a_folder_of_another_run_is_known(tmp_path):
    (tmp_path / "events.out.tfevents.1.host").touch()
    assert not begun_by_normkit(tmp_path)
    write(tmp_path, [cut(made(0, params()), "l2")])
    assert begun_by_normkit(tmp_path)
