"""Two recordings side by side: where they part, and every tensor's ratio against one taken from the arrays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import made_up
from made_up import param, trained
from normkit.errors import ArgumentError
from normkit.report import Look
from normkit.report.compare import compare, compare_json, share
from normkit.report.pair import Pair

STEPS = [0, 1, 2, 5, 10, 20]
NAMES = ("a.weight", "b.weight", "c.bias")


def run(names=NAMES, steps=STEPS, shape=(4, 3)):
    """Weights that depend on the name and the step alone."""
    made = trained([param(name, shape) for name in names], steps, lambda name, t: 1.0)
    for k, step in enumerate(steps):
        made.weights[k] = [np.arange(1.0, 1 + math.prod(shape)) + step + len(name) for name in names]
    made.meta["finished"] = "2026-11-21T10:00:00+00:00"
    return made


def scaled(made, name, factor, since=0):
    """The same run with one tensor's weights times `factor` from a step on."""
    n = made.tensors.index(name)
    for k, step in enumerate(made.steps):
        if step >= since:
            made.weights[k][n] = made.weights[k][n] * factor
    return made


def rows(text):
    """Cells of the table by tensor, in order."""
    lines = text.split("\n")
    start = next(n for n, line in enumerate(lines) if line.startswith(" tensor"))
    return {line.split()[0]: line.split()[1:] for line in lines[start + 1 :] if not line.startswith((" at ", " ..."))}


GOLDEN = """\
A: runs/made-up.norms    6 records x 3 tensors
B: runs/made-up.norms    6 records x 3 tensors
the runs part at step 5 (identical until step 2): b.weight, 1 of 3 common tensors
6 common steps, 0 to 20
 tensor    l2 in A   in B    B/A  least..most  trend
 b.weight    120.1  240.2  2.000     1..2.000  ▁█████
 a.weight    120.1  120.1      1            1  ▁▁▁▁▁▁
 c.bias      113.2  113.2      1            1  ▁▁▁▁▁▁
 at step 20; trend of B/A: 6 slices of steps"""


def test_compare_of_two_small_runs():
    assert compare(Pair(run(), scaled(run(), "b.weight", 2.0, since=5)), Look(width=100)) == GOLDEN


def test_identical_runs_say_so():
    pair = Pair(run(), run())
    assert pair.parting() is None
    assert compare(pair).split("\n")[2] == "identical in all 6 common steps, 0 to 20, of 3 common tensors"


def test_only_common_steps_and_tensors_count():
    pair = Pair(run(steps=[0, 2, 4, 8]), scaled(run(("c.bias", "a.weight", "d.weight"), [2, 3, 8]), "a.weight", 3.0))
    assert pair.steps.tolist() == [2, 8]
    assert (pair.tensors, pair.only_a, pair.only_b) == (["a.weight", "c.bias"], ["b.weight"], ["d.weight"])
    text = compare(pair)
    assert "only in A: 1 tensor: b.weight\nonly in B: 1 tensor: d.weight\n" in text
    assert [(one.name, one.ratios.tolist()) for one in pair.ratios()] == [
        ("a.weight", pytest.approx([3, 3])),
        ("c.bias", [1, 1]),
    ]


@pytest.mark.parametrize("kind", ["l1", "l2", "linf", "rms", "mean"])
def test_ratios_are_those_of_the_arrays(kind):
    oracle = {
        "l1": lambda w: np.abs(w).sum(),
        "l2": lambda w: np.sqrt((w * w).sum()),
        "linf": lambda w: np.abs(w).max(),
        "rms": lambda w: np.sqrt((w * w).mean()),
        "mean": np.mean,
    }[kind]
    a, b = run(), scaled(run(), "a.weight", 1.75, since=10)
    b.weights[-1][2] = b.weights[-1][2] - 30
    for one in Pair(a, b).ratios(kind):
        n = NAMES.index(one.name)
        expected = [oracle(w[n]) / oracle(v[n]) for v, w in zip(a.weights, b.weights, strict=True)]
        np.testing.assert_allclose(one.ratios, expected, rtol=1e-12)
        assert (one.a, one.b) == pytest.approx((oracle(a.weights[-1][n]), oracle(b.weights[-1][n])))
        assert one.span == pytest.approx((min(expected), max(expected)))


def test_half_is_as_far_as_double_and_what_is_not_finite_comes_first():
    b = scaled(scaled(scaled(run(), "a.weight", 1.9), "b.weight", 0.5), "c.bias", np.nan, since=20)
    assert list(rows(compare(Pair(run(), b)))) == ["c.bias", "b.weight", "a.weight"]


def test_zero_over_zero_is_equal():
    pair = Pair(scaled(run(), "a.weight", 0.0), scaled(run(), "a.weight", 0.0))
    assert [one.last for one in pair.ratios()] == [1, 1, 1]
    assert rows(compare(Pair(scaled(run(), "a.weight", 0.0), run())))["a.weight"][2] == "inf"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_equal_nan_is_no_parting_and_a_new_one_is(value):
    a, b = (scaled(run(), "a.weight", value, since=10) for _ in range(2))
    with np.errstate(invalid="ignore"):
        assert Pair(a, b).parting() is None
        assert Pair(a, b).parting(0.1) is None
        for tolerance in (0.0, 0.5):
            assert Pair(run(), scaled(run(), "a.weight", value, since=10)).parting(tolerance).step == 10


@pytest.mark.parametrize(("tolerance", "step"), [(0.0, 1), (1e-9, 2), (1e-3, 10), (0.4, None)])
def test_parting_is_beyond_the_tolerance(tolerance, step):
    b = scaled(scaled(scaled(run(), "a.weight", 1 + 1e-12, 1), "a.weight", 1 + 1e-6, 2), "c.bias", 1.01, 10)
    parting = Pair(run(), b).parting(tolerance)
    assert (parting and parting.step) == step


def test_any_sum_parts_runs_also_where_the_l2_is_equal():
    b = run()
    b.weights[2][1] = -b.weights[2][1]
    parting = Pair(run(), b).parting()
    assert (parting.step, parting.tensors, parting.before) == (2, ("b.weight",), 1)


def test_parting_at_the_first_common_step():
    text = compare(Pair(run(), scaled(run(), "a.weight", 2.0)))
    assert "the runs part at step 0 (the first common one): a.weight, 1 of 3 common tensors" in text


def test_a_tensor_that_one_run_lacks_at_a_step():
    b = run()
    b.weights[-1][0] = None
    one = next(one for one in Pair(run(), b).ratios() if one.name == "a.weight")
    assert math.isnan(one.last)
    assert one.span == (1, 1)
    assert Pair(run(), b).parting().step == 20


def test_other_shapes_are_named():
    text = compare(Pair(run(("a.weight",)), run(("a.weight",), shape=(6, 2))))
    assert "of different shapes: 1 tensor: a.weight" in text


def test_no_common_step_or_tensor():
    with pytest.raises(ArgumentError, match="have no step in common: 2 records of steps 0 to 1 in A, no record in B"):
        Pair(run(steps=[0, 1]), run(steps=[]))
    with pytest.raises(ArgumentError, match=r"have no tensor in common: 'a.weight' in A, 'b.weight' in B"):
        Pair(run(("a.weight",)), run(("b.weight",)))


def test_long_tables_are_cut():
    pair = Pair(made_up.transformer(3), made_up.transformer(3))
    text = compare(pair)
    assert len(rows(text)) == 25
    assert f"\n ... {len(pair.tensors) - 25} more (--all)\n" in text
    assert len(rows(compare(pair, all=True))) == len(pair.tensors)
    assert "--all" not in compare(pair, all=True)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_lines_fit(width):
    text = compare(Pair(made_up.digits(), scaled(made_up.digits(), "fc1.weight", 1.001, 20)), Look(width=width))
    assert [line for line in text.split("\n") if len(line) > width] == []


def test_names_do_not_steer_the_terminal():
    names = ("a\x1b[2J.weight",)
    assert "\x1b" not in compare(Pair(run(names), scaled(run(names), *names, 2.0)))


def test_a_run_that_is_not_closed_says_so():
    live = run()
    del live.meta["finished"]
    lines = compare(Pair(run(), live), Look(width=120)).split("\n")
    assert ["not closed" in line for line in lines[:2]] == [False, True]


def test_json_says_the_same():
    found = compare_json(Pair(run(), scaled(run(), "b.weight", np.nan, since=5)))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["parting"] == {"step": 5, "tensors": ["b.weight"], "identical_until": 2}
    assert (found["tensors"][0]["name"], found["tensors"][0]["ratio"]) == ("b.weight", None)
    assert found["common_steps"] == STEPS
    assert found["tensors"][1]["trend"] == [1.0] * 6


def test_share_never_calls_unequal_equal():
    assert share(np.nextafter(1, 2)) == "1+2e-16"
    assert share(np.nextafter(1, 0)) == "1-1e-16"
