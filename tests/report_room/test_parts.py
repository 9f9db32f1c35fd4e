"""Normalized weights in a recording: one weight of three tensors, in every view of it."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

import made_up
import normkit
import normkit.torch as nk
from made_up import param, trained
from normkit.readers.tables import reached
from normkit.report import Look, show, to_json
from normkit.report.compare import compare
from normkit.report.pair import Pair
from normkit.sinks import comma, tidy


def normed(names):
    params = [
        param(f"{name}{suffix}", (4, 1) if suffix == ".g" else (4, 9), role="kernel", part=part)
        for name in names
        for suffix, part in (("", "effective"), (".g", "g"), (".v", "v"))
    ]
    return trained([*params, param("fc.bias", (4,))], range(0, 101, 10), lambda name, t: 1 + t * name.endswith("v"))


def figures(made, names):
    lengths = made.matrix("l2")[[0, -1]]
    column = made.tensors.index
    return {name: 8**0.5 * (lengths[:, column(f"{name}.g")] / lengths[:, column(f"{name}.v")]) ** 2 for name in names}


def unwrapped(text):
    return " ".join(text.split())


def test_show_gives_each_of_a_few_weights_its_figure():
    made = normed(["a.weight", "b.weight"])
    (a, b) = figures(made, ["a.weight", "b.weight"]).values()
    line = (
        f"R of g and v, first -> last: a.weight {a[0]:.3g} -> {a[1]:.3g}, b.weight {b[0]:.3g} -> {b[1]:.3g} "
        "(1: balanced; far below, the direction is frozen)"
    )
    text = show(made, Look(width=80))
    assert line in unwrapped(text)
    assert max(map(len, text.split("\n"))) <= 80
    assert a[1] == pytest.approx(a[0] / 4)


def test_show_gives_many_weights_their_range():
    names = [f"h.{n}.weight" for n in range(30)]
    made = normed(names)
    found = np.array(list(figures(made, names).values()))
    first, last = (f"{found[:, n].min():.3g}..{found[:, n].max():.3g}" for n in (0, 1))
    text = show(made, Look(width=100))
    assert f"R of g and v, first -> last: {first} -> {last} of 30 weights, least of {names[found[:, 1].argmin()]}" in (
        unwrapped(text)
    )
    rows = [line.split()[:3] for line in text.split("\n") if line.startswith(" h.*")]
    assert rows == [
        ["h.*.weight", "x30", "kernel"],
        ["h.*.weight.g", "x30", "part"],
        ["h.*.weight.v", "x30", "part"],
    ]


def test_show_of_other_weights_says_nothing_of_parts():
    assert "R of g" not in show(made_up.digits(), Look())
    assert "R of g" not in show(normed(["a.weight"]), Look(), select={"fc.bias"})
    assert "R of g" in show(normed(["a.weight"]), Look(), select={"a.weight.g"})


def test_json():
    made = normed(["a.weight", "b.weight"])
    (a, b) = figures(made, ["a.weight", "b.weight"]).values()
    shown = json.loads(json.dumps(to_json(made), allow_nan=False))
    assert shown["balance"] == [
        {"name": name, "entries": 9, "first": pytest.approx(each[0]), "last": pytest.approx(each[1])}
        for name, each in (("a.weight", a), ("b.weight", b))
    ]
    assert shown["total"]["weights"] == 2 * 36 + 4
    assert to_json(made, select={"b.weight.v"})["balance"][0]["name"] == "b.weight"
    assert to_json(made_up.digits())["balance"] == []


# -- a real run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "normed.norms"
    torch.manual_seed(0)
    model = torch.nn.Sequential(weight_norm(torch.nn.Linear(5, 6)), torch.nn.Tanh(), weight_norm(torch.nn.Linear(6, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x, y = torch.randn(32, 5), torch.randn(32, 2)
    with nk.record(model, optimizer, to=path, every=1, quiet=True):
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    return model, normkit.load(path)


def test_a_run_of_torchs_own_weight_norm(run):
    model, recording = run
    (first, second) = to_json(recording)["balance"]
    assert (first["name"], first["entries"], second["name"], second["entries"]) == ("0.weight", 5, "2.weight", 6)
    assert first["first"] == pytest.approx(2, rel=1e-6)  # v starts as the weight: sqrt(C - 1)
    parts = model[0].parametrizations.weight
    ratio = parts.original0.pow(2).sum() / parts.original1.pow(2).sum()
    assert first["last"] == pytest.approx(2 * ratio.item(), rel=1e-5)
    lengths = recording.series("0.weight.v")
    assert (np.diff(lengths) > 0).all()  # every step of SGD lengthens v
    assert "R of g and v" in show(recording, Look())


def test_a_healthy_run_has_no_findings_of_its_parts(run):
    assert [finding.rule for finding in run[1].findings()] == []


def test_parts_count_once(run):
    model, recording = run
    effective = [model[0].weight, model[0].bias, model[2].weight, model[2].bias]
    total = to_json(recording)["total"]
    assert total["weights"] == sum(w.numel() for w in effective)
    assert total["l2_last"] == pytest.approx(sum(w.pow(2).sum().item() for w in effective) ** 0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["0.weight"], {"0.weight"}),
        (["weight"], {"0.weight", "2.weight"}),
        (["0.weight.g"], {"0.weight.g"}),
        (["weight.v"], {"0.weight.v", "2.weight.v"}),
        (["0.weight*"], {"0.weight", "0.weight.g", "0.weight.v"}),
        (["0.*", "!*.g"], {"0.weight", "0.weight.v", "0.bias"}),
        (["kernel", "0.*"], {"0.weight", "0.weight.g", "0.weight.v"}),
    ],
    ids=lambda given: " ".join(sorted(given)),
)
def test_select_takes_the_weight_by_its_name_and_the_parts_by_theirs(run, patterns, names):
    assert reached(run[1], patterns) == names


def test_parts_have_series_sums_and_rows_of_a_table(run):
    model, recording = run
    parts = model[2].parametrizations.weight
    assert recording.series("2.weight.g")[-1] == pytest.approx(parts.original0.norm().item(), rel=1e-6)
    assert recording.at(40)["2.weight.v"]["weight"].count == 12
    assert "grad" not in recording.at(40)["2.weight"]  # the weight that they make is no parameter
    assert recording.at(40)["2.weight.v"]["grad"].sq > 0
    stream = io.BytesIO()
    comma.write(tidy.blocks(recording), stream)
    table = csv.DictReader(io.StringIO(stream.getvalue().decode()))
    rows = {(row["layer"], row["weight"]) for row in table if row["tensor"].startswith("0.weight")}
    assert rows == {("0", "weight"), ("0", "weight.g"), ("0", "weight.v")}


def test_compare_knows_parts_by_name(run):
    text = compare(Pair(run[1], run[1]), Look(width=100))
    assert all(name in text for name in ("0.weight ", "0.weight.g ", "0.weight.v "))
