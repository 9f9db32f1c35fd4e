"""`nk.record(per=...)`: sums of each row, column and filter, against float64 sums of the slices."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import as64, assert_close, net, one_step
from normkit.errors import ArgumentError


def norms(array, kept):
    other = tuple(place for place in range(array.ndim) if place != kept)
    return np.sqrt((array**2).sum(axis=other))


@pytest.mark.parametrize(("per", "kept"), [("out", 0), ("in", 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_matrix(per, kept, dtype, tmp_path):
    model = net(dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    truth = {"weight": [norms(as64(model[0].weight), kept)], "grad": [], "update": []}
    with nk.record(model, optimizer, to=tmp_path / "a", every=1, per=per, quiet=True) as rec:
        for step in range(1, 4):
            before = as64(model[0].weight)
            one_step(model, optimizer, step)
            truth["weight"].append(norms(as64(model[0].weight), kept))
            truth["grad"].append(norms(as64(model[0].weight.grad), kept))
            truth["update"].append(norms(as64(model[0].weight) - before, kept))
    run = normkit.load(rec.path)
    assert run.tensors == ("0.weight", "0.bias", "2.weight", "2.bias")
    for quantity, expected in truth.items():
        found = run.rows("0.weight", quantity=quantity, per=per)
        assert_close(found[len(found) - len(expected) :], expected)
    assert_close(np.sqrt((run.rows("0.weight", per=per) ** 2).sum(axis=1)), run.series("0.weight"))


@pytest.mark.parametrize(
    ("layer", "shape", "kept"),
    [
        (lambda: torch.nn.Conv2d(2, 3, 2), (1, 2, 4, 4), 0),
        (lambda: torch.nn.ConvTranspose2d(2, 3, 2), (1, 2, 4, 4), 1),
        (lambda: torch.nn.Linear(4, 3), (2, 4), 0),
    ],
)
def test_one_group_per_output(layer, shape, kept, tmp_path):
    model = layer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=tmp_path / "a", every=1, per="out", quiet=True) as rec:
        model(torch.ones(shape)).sum().backward()
        optimizer.step()
    assert_close(normkit.load(rec.path).rows("weight")[-1], norms(as64(model.weight), kept))


def test_a_dict_says_for_which(tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=tmp_path / "a", per={"2.weight": "out", "0.*": "in"}, quiet=True) as rec:
        one_step(model, optimizer, 1)
    run = normkit.load(rec.path)
    assert run.rows("2.weight").shape == (2, 3)
    assert run.rows("0.weight", per="in").shape == (2, 6)
    with pytest.raises(ArgumentError, match=r"^'0\.weight' was not recorded per='out'"):
        run.rows("0.weight")


@pytest.mark.parametrize(
    ("per", "sentence"),
    [
        (
            "rows",
            r"per='rows': expected 'tensor', 'out', 'in', an axis number, or a dict from tensors to these: \{'head",
        ),
        ({"0.weight": 1.5}, r"per=1.5: expected 'tensor', 'out', 'in', an axis number, or a dict"),
        ({"0.bias": 3}, r"per=\{'0.bias': 3\}: no tensor of these has an axis 3 and others besides"),
        ({"0.bias": "out"}, r"per=\{'0\.bias': 'out'\}: no tensor of these has 'out' axes and others besides"),
        ({"nowhere": "out"}, r".*'nowhere' matches none of 4 parameters"),
    ],
)
def test_what_makes_no_sense(per, sentence, tmp_path):
    model = net()
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        nk.record(model, torch.optim.SGD(model.parameters(), lr=0.1), to=tmp_path / "a", per=per, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_recording_rows_changes_nothing(tmp_path):
    ends = []
    for per in ("tensor", "out"):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with nk.record(model, optimizer, to=tmp_path / per, every=1, per=per, quiet=True):
            for step in range(1, 4):
                one_step(model, optimizer, step)
        ends.append([as64(p) for p in model.parameters()])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_array_equal(a, b)
