"""The lines between the first two and the table: what a long run went through."""

from __future__ import annotations

import pytest

import made_up
from made_up import param, trained
from normkit.report import Look, show, to_json

WIDE = Look(width=120)

BEGAN = [{"began": 0, "end": "killed"}, {"began": 4000}, {"began": 12000}]
THINNED = {"stride": 16, "before": 120000}


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        (
            {"thinned": THINNED, "budget": 256 << 20},
            "recorded: every 16th record before step 120,000 kept (budget 256 MB)",
        ),
        ({"thinned": THINNED, "budget": None}, "recorded: every 16th record before step 120,000 kept"),
        (
            {"thinned": THINNED, "steps": 2000, "every": "auto: every 10 steps"},
            "recorded: every 10 steps (auto); every 16th record before step 120,000 kept",
        ),
        ({"attempts": BEGAN[:2]}, "resumed at step 4,000 (attempt 2)"),
        ({"attempts": BEGAN}, "resumed 2 times, last at step 12,000 (attempt 3)"),
    ],
)
def test_what_a_long_run_went_through_is_said(meta, line):
    made = trained([param("w.weight", (3,))], range(11), lambda n, t: 1 + t, meta=meta)
    assert show(made, WIDE).split("\n")[2] == line


@pytest.mark.parametrize(
    "meta",
    [
        {"budget": 256 << 20},
        {"attempts": BEGAN[:1]},
        {"attempts": "many"},
        {"attempts": [1, {"began": "x"}, None]},
        {"thinned": 16},
        {"thinned": {"stride": "16", "before": 3}},
    ],
)
def test_what_did_not_happen_or_makes_no_sense_is_not_said(meta):
    made = trained([param("w.weight", (3,))], range(11), lambda n, t: 1 + t, meta=meta)
    assert show(made, WIDE).split("\n")[2].startswith(" tensor")


ODD = [
    "x",
    [1],
    {"a": 1},
    True,
    -1,
    1.5,
    [None],
    {"groups": 3},
    [{"groups": [1]}],
    [{"name": [1], "groups": [{"lr": [1]}]}],
]
KEYS = ["steps", "finished", "end", "error", "every", "optimizers", "untrained", "thinned", "attempts", "budget"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ODD, ids=str)
def test_metadata_that_make_no_sense_are_no_reason_to_fail(key, value):
    made = made_up.digits()
    made.meta[key] = value
    assert "12 tensors" in show(made, WIDE)
    assert len(to_json(made)["tensors"]) == 12
