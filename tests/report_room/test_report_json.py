"""`--json`: its keys, its types, and that it is JSON whatever the run did."""

from __future__ import annotations

import json

import numpy as np
import pytest

import made_up
from normkit.report import to_json

TOP = {"format", "path", "records", "steps", "recorded_steps", "meta", "total", "findings", "balance", "tensors"}
FINDING = {"rule", "severity", "text", "remedy", "tensors", "basis", "source", "step", "evidence"}
TENSOR = {
    "name": str,
    "aliases": list,
    "role": str,
    "layer": str,
    "shape": list,
    "dtype": str,
    "trainable": bool,
    "part": str,
    "first": dict,
    "last": dict,
    "change": float,
    "update_per_step": float,
    "trend": list,
}
NORMS = {"step", "l1", "l2", "linf", "rms", "mean", "std", "zeros", "nonfinite"}


def as_json(made, **more):
    """Through text and back, refusing what JSON does not know."""
    return json.loads(json.dumps(to_json(made, **more), allow_nan=False))


def test_keys_and_types():
    shown = as_json(made_up.digits())
    assert set(shown) == TOP
    assert (shown["format"], shown["records"], shown["steps"]) == (1, 57, 920)
    assert [set(finding) for finding in shown["findings"]] == [FINDING]
    assert len(shown["tensors"]) == 12
    first = shown["tensors"][0]
    assert {key: type(value) for key, value in first.items()} == TENSOR
    assert set(first["first"]) == set(first["last"]) == NORMS


def test_figures_are_those_of_the_recording():
    made = made_up.digits()
    first = as_json(made)["tensors"][0]
    assert first["first"]["l2"] == made.matrix("l2")[0, 0]
    assert first["last"]["linf"] == made.matrix("linf")[-1, 0]
    assert first["change"] == pytest.approx(-0.013, abs=1e-12)
    assert (first["first"]["step"], first["last"]["step"]) == (0, 920)
    assert len(first["trend"]) == 12


def test_nothing_is_folded_or_hidden():
    assert len(as_json(made_up.transformer())["tensors"]) == 291


def test_select():
    assert [tensor["name"] for tensor in as_json(made_up.digits(), select={"fc1.bias"})["tensors"]] == ["fc1.bias"]


def test_numbers_that_json_does_not_know_are_null():
    made = made_up.digits()
    made.weights[-1][0] = np.full((16, 1, 3, 3), np.nan)
    made.meta["loss"] = float("inf")
    shown = as_json(made)
    last = shown["tensors"][0]["last"]
    assert (last["l2"], last["nonfinite"], shown["tensors"][0]["change"], shown["meta"]["loss"]) == (
        None,
        144,
        None,
        None,
    )
    assert shown["total"]["l2_last"] is None


@pytest.mark.parametrize("steps", [[], [0]])
def test_short_recordings(steps):
    made = made_up.trained([made_up.param("w.weight", (3,))], steps, lambda name, t: 1.0)
    assert len(as_json(made)["tensors"]) == 1


def test_meta_that_json_does_not_know_becomes_text():
    made = made_up.digits()
    made.meta["where"] = made.path
    assert as_json(made)["meta"]["where"] == str(made.path)
