"""`nk.record` when something is wrong: the training never notices, and the sentence says what."""

import copy

import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import net, one_step
from normkit.errors import ArgumentError, FileError, ModelError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.norms"


def test_a_failure_never_reaches_the_training(file, monkeypatch):
    model, twin = net(), net()
    optimizer, other = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, twin))
    rec = nk.record(model, optimizer, to=file, every=1, quiet=True)
    one_step(model, optimizer, 1)
    monkeypatch.setattr("normkit.torch.columns.ops.step_sums", lambda *a, **k: 1 / 0)
    with pytest.warns(RuntimeWarning, match="normkit stopped recording at step .* training goes on"):
        one_step(model, optimizer, 2)
    one_step(model, optimizer, 3)
    for step in (1, 2, 3):
        one_step(twin, other, step)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert list(normkit.load(file).steps) == [0, 1]
    rec.close()


def test_a_failure_under_warnings_as_errors(file, monkeypatch, capsys):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rec = nk.record(model, optimizer, to=file, every=1, quiet=True)
    monkeypatch.setattr("normkit.torch.columns.ops.step_sums", lambda *a, **k: 1 / 0)
    one_step(model, optimizer, 2)  # warnings are errors in this suite: none may come through
    assert "training goes on" in capsys.readouterr().err
    rec.close()


def test_an_exception_of_the_script_closes_the_file(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(KeyError), nk.record(model, optimizer, to=file, every=5, quiet=True):
        for step in range(3):
            one_step(model, optimizer, step)
        raise KeyError("mine")
    run = normkit.load(file)
    assert list(run.steps) == [0, 3]
    assert run.meta["end"] == "error: KeyError"


def test_copies_of_the_optimizer_do_not_record(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        copy.deepcopy(optimizer).step()
        one_step(model, optimizer, 1)
    assert rec.steps == 1


def test_an_existing_file_is_kept(file, capsys):
    model = net()
    paths = []
    for _ in range(2):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with nk.record(model, optimizer, to=file) as rec:
            one_step(model, optimizer, 1)
        paths.append(rec.path.name)
    assert paths == ["run.norms", "run-2.norms"]
    said = capsys.readouterr().err
    assert f"{file} exists and is kept; recording to {file.with_name('run-2.norms')}" in said
    assert f"recorded 1 of 1 steps x 4 tensors in {file}" in said


def test_other_ranks_record_nothing(file, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file) as rec:
        one_step(model, optimizer, 1)
        rec.log(loss=1.0)
        rec.epoch()
    assert rec.path is None
    assert not file.exists()


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ({"every": 0}, ArgumentError, "every=0: expected a number of optimizer steps of at least 1"),
        ({"every": True}, ArgumentError, "every=True: expected"),
        ({"every": "often"}, ArgumentError, "every='often': expected"),
        ({"overhead": 0}, ArgumentError, "overhead=0: expected a share"),
        ({"what": ("weight", "momentum")}, ArgumentError, "what='momentum': expected some of weight, grad, update"),
        ({"select": "conv*"}, ArgumentError, r"conv\*"),
        ({"to": "."}, FileError, "directory"),
    ],
)
def test_bad_arguments(arguments, kind, sentence, file, tmp_path):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"to": file, **arguments}
    with pytest.raises(kind, match=sentence):
        nk.record(model, optimizer, quiet=True, **given)
    assert not list(tmp_path.iterdir())
    one_step(model, optimizer, 1)


def test_bad_models(file):
    optimizer = torch.optim.SGD(net(1).parameters(), lr=0.1)
    with pytest.raises(ModelError, match="SGD holds 4 parameters, none of them among the model's 4"):
        nk.record(net(0), optimizer, to=file)
    with pytest.raises(ArgumentError, match=r"model=generator: expected a torch\.nn\.Module"):
        nk.record(net().parameters(), optimizer, to=file)
    with pytest.raises(ArgumentError, match=r"record\(\): expected a model, an optimizer, or both"):
        nk.record()
    with pytest.raises(ArgumentError, match=r"optimizer=float: expected a torch\.optim optimizer"):
        nk.record(net(), 0.1, to=file)
    assert not file.exists()
