"""The few numbers that sum up a record, against NumPy; and how often a file is looked at."""

from dataclasses import replace

import numpy as np
import pytest

import made_up
from normkit.recording import figures as room
from normkit.recording.figures import FIGURES, Looks, Members, figures
from normkit.types import Reading

RNG = np.random.default_rng(5)
SHAPES = {"a.weight": (3, 4), "a.bias": (3,), "b.weight": (2, 2)}


def params(**changes):
    return [replace(made_up.param(name, shape), **changes.get(name[0], {})) for name, shape in SHAPES.items()]


def arrays():
    return [RNG.normal(size=shape) for shape in SHAPES.values()]


def reading(**quantities):
    values = {}
    for word, given in quantities.items():
        matrix = np.array([made_up.sums_of(array, array) for array in given]).T
        values[word] = matrix[:6] if word == "weight" else matrix
    return Reading(7, 0, 0.0, values)


def length(given):
    return np.sqrt(sum((array**2).sum() for array in given))


def test_every_figure_against_numpy():
    weights, grads, updates = arrays(), arrays(), arrays()
    weights[1][0] = 0.0
    found = figures(reading(weight=weights, grad=grads, update=updates), Members(params()))
    ratios = [length([u]) / length([w]) for u, w in zip(updates, weights, strict=True)]
    expected = {
        "weight_l2": length(weights),
        "weight_linf": max(np.abs(w).max() for w in weights),
        "grad_l2": length(grads),
        "update_l2": length(updates),
        "update_ratio": max(ratios),
        "update_ratio_tensor": int(np.argmax(ratios)),
        "zeros": 1 / 19,
        "nonfinite": 0,
    }
    assert found == pytest.approx(expected, rel=1e-12)
    assert list(found) == list(expected) == list(FIGURES)[:-1]
    assert all(type(value) is float for value in found.values())


def test_only_what_the_record_has():
    assert set(figures(reading(weight=arrays()), Members(params()))) == {
        "weight_l2",
        "weight_linf",
        "zeros",
        "nonfinite",
    }
    assert figures(Reading(0, 0, 0.0, {}), Members(())) == {}
    assert figures(reading(weight=[None] * 3), Members(params())) == {}


def test_a_tensor_that_is_not_there_counts_for_nothing():
    weights, grads = arrays(), arrays()
    grads[0] = None
    found = figures(reading(weight=weights, grad=grads), Members(params()))
    assert found["grad_l2"] == pytest.approx(length(grads[1:]))
    weights[2] = None
    found = figures(reading(weight=[w if w is None else 0 * w for w in weights]), Members(params()))
    assert found["zeros"] == 1.0


@pytest.mark.parametrize("left_out", [{"role": "buffer"}, {"part": "g"}, {"part": "v"}])
def test_buffers_and_parts_are_left_out(left_out):
    weights, updates = arrays(), arrays()
    updates[0] *= 1e6
    found = figures(reading(weight=weights, update=updates), Members(params(a=left_out)))
    assert found["weight_l2"] == pytest.approx(length(weights[2:]))
    assert found["update_ratio_tensor"] == 2


def test_columns_of_groups_are_left_out():
    weights = arrays()
    assert figures(reading(weight=[*weights, *arrays()]), Members(params()))["weight_l2"] == pytest.approx(
        length(weights)
    )


def test_what_is_not_finite_is_said():
    weights, grads = arrays(), arrays()
    weights[0][0, 0] = np.nan
    grads[1][:2] = np.inf
    found = figures(reading(weight=weights, grad=grads), Members(params()))
    assert np.isnan([found["weight_l2"], found["weight_linf"]]).all()
    assert (found["grad_l2"], found["nonfinite"]) == (np.inf, 3)


def test_a_tensor_of_zeros_has_no_ratio():
    weights, updates = arrays(), arrays()
    weights[1][:] = 0
    found = figures(reading(weight=weights, update=updates), Members(params()))
    assert found["update_ratio_tensor"] in (0, 2)
    assert "update_ratio" not in figures(reading(weight=[0 * w for w in weights], update=updates), Members(params()))


def test_a_file_is_looked_at_in_a_hundredth_of_the_time(monkeypatch, tmp_path):
    now, looks = [0.0], []

    def look(path):
        looks.append(now[0])
        now[0] += 2.0  # seconds that it takes
        return path

    monkeypatch.setattr(room, "Recording", look)
    monkeypatch.setattr(room.diagnose, "findings", lambda recording: [recording])
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    counter = Looks()
    for _ in range(1000):
        assert counter.count(tmp_path / "a.norms") == {"findings": 1.0}
        now[0] += 1.0
    assert len(looks) == pytest.approx(1000 / 200, abs=1)


def test_a_file_that_cannot_be_read_has_no_number_of_findings(tmp_path):
    assert Looks().count(tmp_path / "none.norms") == {}
