"""The text of `show`: what stands where, what is folded, hidden, cut, and how it looks in a poor terminal."""

from __future__ import annotations

import numpy as np
import pytest

import made_up
from made_up import param, trained
from normkit.report import Look, show
from normkit.report.look import BLOCKS

WIDE = Look(width=120)


def table(text):
    """Cells of the table's rows by name; the title's are under "tensor"."""
    lines = text.split("\n")
    start = next(n for n, line in enumerate(lines) if line.startswith(" tensor"))
    notes = (" ...", "trend", " xN", " tied", " --all", " R of")
    rows = [line.split() for line in lines[start:] if not line.startswith(notes)]
    return {cells[0]: cells[1:] for cells in rows if "trend:" not in cells}


def assert_fits(text, width):
    too_long = [line for line in text.split("\n") if len(line) > width]
    assert too_long == []


def test_assert_fits_can_fail():
    with pytest.raises(AssertionError):
        assert_fits("short\nlonger", 5)


GOLDEN = """\
normkit: recorded 56 of 920 steps x 12 tensors in runs/made-up.norms
1 finding    38,378 weights    AdamW lr 0.001 wd 0.01    total l2 195.9 -> 276.2
recorded: each of the first 10 steps, then every 20 steps (auto)
 ! conv1.bias, conv2.bias have no effect: rms gradient of conv1.bias 1e-8
   (conv1.weight: 0.0061).
     A bias before BatchNorm cancels. Use Conv2d(..., bias=False). (Ioffe &
     Szegedy 2015, arXiv:1502.03167)                                     theorem
 tensor       role   shape     l2 first -> last  change upd/step trend
 conv1.weight kernel 16x1x3x3   11.52     11.37  -1.3 %   2.8e-4 ▁▁▁▁▁▁▁▁▁▁▁▁
 bn1.weight   scale  16         3.505     3.540  +1.0 %   2.2e-4 ▁▁▁▁▁▁▁▁▁▁▁▁
 conv2.weight kernel 32x16x3x3  67.74     68.42  +1.0 %   2.2e-4 ▁▁▁▁▁▁▁▁▁▁▁▁
 bn2.weight   scale  32         4.583     4.629  +1.0 %   2.2e-4 ▁▁▁▁▁▁▁▁▁▁▁▁
 bn2.bias     bias   32             0     5.455  from 0   4.4e-2 ▁▂▂▃▄▄▅▅▆▇▇█
 fc1.weight   kernel 64x512     181.2     266.5 +47.1 %   8.1e-3 ▁▂▂▃▄▄▅▅▆▇▇█
 fc1.bias     bias   64         7.647     7.723  +1.0 %   2.2e-4 ▁▁▁▁▁▁▁▁▁▁▁▁
 fc2.weight   kernel 10x64      26.14     15.68 -40.0 %   1.1e-2 █▇▇▆▅▅▄▄▃▂▂▁
 ... 4 more biases (--all)   trend: 12 slices of steps; full height 25 % or more"""


def test_show_of_a_small_net_in_80_columns():
    assert show(made_up.digits(), Look(width=80)) == GOLDEN


@pytest.mark.parametrize("width", [40, 60, 72, 80, 100, 200])
@pytest.mark.parametrize("made", [made_up.digits(), made_up.transformer()], ids=["digits", "transformer"])
@pytest.mark.parametrize("every", [False, True])
def test_every_line_fits(width, made, every):
    assert_fits(show(made, Look(width=width), all=every), width)


def test_wide_terminals_show_all_columns_and_whole_names():
    rows = table(show(made_up.transformer(), Look(width=200)))
    assert rows["tensor"] == ["role", "shape", "l2", "first", "->", "last", "change", "upd/step", "trend"]
    assert "transformer.h.*.attn.c_attn.weight" in rows


def test_a_large_model_is_folded_by_its_numbered_siblings():
    made = made_up.transformer()
    assert len(made.params) == 291
    rows = table(show(made, WIDE))
    assert len(rows) <= 26
    assert rows["transformer.h.*.mlp.c_fc.weight"][:3] == ["x24", "kernel", "32x8"]
    assert rows["wte.weight"][0] == "embedding"


def test_folded_rows_hold_the_length_of_all_together_and_the_range_of_changes():
    params = [param(f"h.{n}.weight", (4,), role="kernel") for n in range(30)]
    made = trained(params, [0, 10], lambda name, t: 1 + t * (0.5 if name == "h.3.weight" else 0.1))
    cells = table(show(made, WIDE))["h.*.weight"]
    lengths = np.sqrt((made.matrix("l2") ** 2).sum(axis=1))
    assert cells[3:5] == [f"{lengths[0]:.2f}", f"{lengths[1]:.2f}"]
    assert cells[5:7] == ["+10..+50", "%"]


@pytest.mark.parametrize(
    ("names", "row"),
    [
        ([f"layer{a}.{b}.weight" for a in range(30) for b in range(2)], "layer*.*.weight"),
        ([f"block_{a}.weight" for a in range(40)], "block_*.weight"),
    ],
)
def test_numbers_inside_of_names_fold_where_whole_numbers_do_not_suffice(names, row):
    made = trained([param(name, (3,), role="kernel") for name in names], [0, 1], lambda name, t: 1 + t)
    assert row in table(show(made, WIDE))


def test_names_without_numbers_fold_by_layer_and_role_at_last():
    words = [a + b for a in "abcdef" for b in "ghijkl"]
    made = trained(
        [param(f"{word}.weight", (3,), role="kernel", layer="Linear") for word in words], [0, 1], lambda n, t: 1 + t
    )
    text = show(made, WIDE)
    assert "Linear kernel x36" in text


def test_all_shows_each_tensor():
    assert len(table(show(made_up.transformer(), WIDE, all=True))) == 292


def test_a_short_table_hides_no_bias():
    made = trained(
        [param(f"fc{n}.{kind}", (3,)) for n in range(4) for kind in ("weight", "bias")], [0, 1], lambda n, t: 1 + t
    )
    assert len(table(show(made, WIDE))) == 9


def test_a_bias_that_is_not_finite_is_never_hidden():
    made = made_up.digits()
    made.weights[-1][made.tensors.index("bn1.bias")] = np.full(16, np.nan)
    rows = table(show(made, WIDE))
    assert rows["bn1.bias"][3] == "nan"
    assert rows["bn1.bias"][-1].endswith("×")


def test_selected_tensors_are_all_shown():
    names = {"conv1.bias", "conv2.bias", "fc1.bias", "bn1.bias", "bn2.bias", "fc2.bias"}
    assert set(table(show(made_up.digits(), WIDE, select=names))) == names | {"tensor"}


@pytest.mark.parametrize(
    ("sort", "first"), [("name", "bn1.weight"), ("change", "fc1.weight"), ("l2", "fc1.weight"), ("update", "bn2.bias")]
)
def test_sort(sort, first):
    assert list(table(show(made_up.digits(), WIDE, sort=sort)))[1] == first


def test_sort_puts_what_is_not_finite_first():
    made = made_up.digits()
    made.weights[-1][made.tensors.index("conv2.weight")] = np.full((32, 16, 3, 3), np.inf)
    for sort in ("change", "l2", "update"):
        assert list(table(show(made, WIDE, sort=sort)))[1] == "conv2.weight"


def test_parts_stand_behind_the_weight_they_make_and_count_once():
    params = [
        param("conv.weight.g", (4, 1), role="kernel", part="g"),
        param("conv.weight.v", (4, 9), role="kernel", part="v"),
        param("fc.weight", (2, 4)),
        param("conv.weight", (4, 9), part="effective"),
        param("stats", (100,), role="buffer"),
    ]
    made = trained(params, [0, 1], lambda name, t: 1 + t)
    text = show(made, Look(width=140))
    assert list(table(text))[1:] == ["conv.weight", "conv.weight.g", "conv.weight.v", "fc.weight", "stats"]
    assert "44 weights" in text
    total = np.sqrt((made.matrix("l2")[0, [2, 3]] ** 2).sum())
    assert f"total l2 {total:.3f} ->" in text


def test_tied_weights_are_named():
    assert " tied: wte.weight = lm_head.weight" in show(made_up.transformer(), WIDE)


@pytest.mark.parametrize(
    ("meta", "line"),
    [
        ({"end": "interrupted"}, "interrupted after step 920"),
        ({"end": "error: ValueError"}, "the run ended with an error after step 920: ValueError"),
        ({"end": "stopped", "error": "OSError: disk full"}, "recording stopped: OSError: disk full after step 920"),
        ({"finished": None, "end": None}, "not closed: still running, or killed; last record at step 920, "),
    ],
)
def test_a_run_that_did_not_finish_says_so(meta, line):
    made = made_up.digits()
    made.meta |= meta
    assert show(made, WIDE).split("\n")[2].startswith(line)


def test_every_step_recorded_needs_no_explanation():
    made = trained([param("w.weight", (3,))], range(11), lambda n, t: 1 + t, meta={"every": "every step"})
    assert show(made, WIDE).startswith("normkit: recorded 10 of 10 steps x 1 tensor in ")
    assert "recorded: " not in show(made, WIDE)


def groups(*rates):
    return {"optimizers": [{"name": "SGD", "groups": [{"lr": rate, "weight_decay": 0.1 * rate} for rate in rates]}]}


@pytest.mark.parametrize(
    ("meta", "scalars", "words"),
    [
        (groups(0.1), {"lr": [0.1, 0.1, 0.1]}, "SGD lr 0.1 wd 0.01"),
        (groups(0.1), {"lr": [np.nan, 0.1, 0.001]}, "SGD lr 0.1 -> 0.001 wd 0.01"),
        (groups(0.1, 0.1), {"lr": [np.nan, 0.1, 0.001]}, "SGD lr 0.1 -> 0.001 wd 0.01"),
        (groups(0.1, 0.2), {"lr": [np.nan, 0.1, 0.001]}, "SGD lr 0.1/0.2 wd 0.01/0.02"),
        (groups(1, 2, 3, 4, 5), {}, "SGD lr 1/../5 (5 groups)"),
        ({"optimizers": [{"name": "Muon", "groups": []}, {"name": "AdamW"}]}, {}, "Muon    AdamW"),
        ({}, {}, "weights    total"),
    ],
)
def test_optimizers_in_one_line(meta, scalars, words):
    made = trained([param("w.weight", (3,))], range(3), lambda n, t: 1 + t, meta=meta, scalars=scalars)
    assert words in show(made, WIDE).split("\n")[1]


def test_ascii_where_blocks_cannot_be_printed():
    text = show(made_up.transformer(), Look(width=60, blocks=False))
    assert text.isascii()
    assert not set(text) & set(BLOCKS)


def test_colours_only_when_asked():
    assert "\x1b" not in show(made_up.digits(), WIDE)
    assert "\x1b[33;1m !\x1b[0m conv1.bias" in show(made_up.digits(), Look(width=120, color=True))


def test_names_cannot_steer_the_terminal():
    made = trained([param("\x1b[2Jw\n", (3,), role="kernel", aliases=("\x07",))], [0, 1], lambda n, t: 1 + t)
    text = show(made, WIDE)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "?[2Jw?" in text


ODD = {
    "no records": (lambda: trained([param("w.weight", (3,))], [], lambda n, t: 1), "nothing recorded yet"),
    "no tensors": (lambda: trained([], [0, 1], lambda n, t: 1), "x 0 tensors"),
    "one record": (lambda: trained([param("w.weight", (3,))], [0], lambda n, t: 1), "recorded 0 of 0 steps"),
    "all NaN": (lambda: trained([param("w.weight", (3,))], [0, 1], lambda n, t: np.nan), "nan"),
    "no updates": (lambda: made_up.MadeUp([param("w.weight", (3,))], np.arange(2), [[np.ones(3)]] * 2), "-"),
    "empty tensor": (lambda: trained([param("w.weight", (0, 3))], [0, 1], lambda n, t: 1), "0x3"),
    "scalar": (lambda: trained([param("w", (), role="other")], [0, 1], lambda n, t: 1), "scalar"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_recordings_are_shown(name):
    made, words = ODD[name]
    assert words in show(made(), Look(width=80))


def test_a_tensor_that_came_late_and_one_that_left():
    made = trained([param("a.weight", (3,)), param("b.weight", (3,))], range(13), lambda n, t: 1 + t)
    for k in range(13):
        made.weights[k][k < 6] = None  # b is missing in the first six records, a in the others
    text = show(made, Look(width=100))
    a, b = (next(line for line in text.split("\n") if line.startswith(f" {name}.weight")) for name in "ab")
    assert a.endswith(tuple(BLOCKS))
    assert len(a) < len(b)
    assert b[-12:-6].strip() == ""


def test_the_step_is_that_of_the_whole_run_not_of_its_many_early_records():
    steps = [*range(101), *range(200, 1201, 100)]
    made = trained([param("w.weight", (3,))], steps, lambda name, t: 1.0)
    large, small = 0.1, 0.001
    made.updates = [
        [None] if k == 0 else [(large if step <= 100 else small) * np.asarray(made.weights[k][0])]
        for k, step in enumerate(steps)
    ]
    assert table(show(made, WIDE))["w.weight"][-2] == "1.0e-3"


@pytest.mark.parametrize(
    ("value", "words"), [(np.inf, ["to", "inf"]), (np.nan, ["to", "nan"])], ids=["infinite", "not a number"]
)
def test_a_change_to_what_is_not_finite_says_so(value, words):
    made = made_up.digits()
    made.weights[-1][made.tensors.index("conv2.weight")] = np.full((32, 16, 3, 3), value)
    assert table(show(made, WIDE))["conv2.weight"][4:6] == words


def test_a_single_record_makes_one_slice():
    text = show(trained([param("w.weight", (3,))], [0], lambda name, t: 1.0), WIDE)
    assert "trend: 1 slice of steps;" in text
