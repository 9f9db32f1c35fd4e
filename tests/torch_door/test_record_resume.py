"""`nk.record(resume=...)`: a run that was killed, gone on with from a checkpoint, reads as one that was not."""

import copy
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import net, one_step
from normkit.recording import search

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
}

KILLED = """
    import os, sys, torch
    sys.path.insert(0, {tests!r})
    import normkit.torch as nk
    from loops import net, one_step
    model = net()
    optimizer = {{"adam": lambda p: torch.optim.Adam(p, lr=0.01),
                  "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}}[{kind!r}](model.parameters())
    rec = nk.record(model, optimizer, to="run", every={every}, per={per!r}, quiet=True)
    for step in range(1, {killed} + 1):
        one_step(model, optimizer, step)
        rec.log(loss=step)
        if step == {saved}:
            torch.save([model.state_dict(), optimizer.state_dict()], "checkpoint.pt")
    rec._inbox.release(rec._writer)
    rec._writer.flush()
    os._exit(9)
"""


def killed(folder, kind, *, saved, killed, every=1, per="tensor"):
    """A run that was killed after some step, with the checkpoint of an earlier one; its recording."""
    code = textwrap.dedent(KILLED).format(
        tests=str(Path(__file__).parents[1]), kind=kind, saved=saved, killed=killed, every=every, per=per
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    return folder / "run.norms"


def loaded(folder, kind):
    model = net(1)
    optimizer = OPTIMIZERS[kind](model.parameters())
    weights, state = torch.load(folder / "checkpoint.pt")
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    return model, optimizer


def train(model, optimizer, rec, steps):
    with rec:
        for step in steps:
            one_step(model, optimizer, step)
            rec.log(loss=step)
    return normkit.load(rec.path)


def straight(folder, kind, steps, **more):
    """The same run, undisturbed."""
    model = net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    rec = nk.record(model, optimizer, to=folder / "straight", quiet=True, **({"every": 1} | more))
    return train(model, optimizer, rec, range(1, steps + 1))


def assert_same(run, other, *, again=()):
    """Each step once, with the same sums, bit for bit; of a step that an attempt began at `again` only the weights."""
    assert run.steps.tolist() == other.steps.tolist()
    assert run.tensors == other.tensors
    whole = ~np.isin(run.steps, again)
    for row in ("sum", "abs", "sq", "max", "zeros", "nonfinite"):
        np.testing.assert_array_equal(run.sums(row), other.sums(row))
    for quantity in ("grad", "update"):
        for row in ("sum", "abs", "sq", "max", "zeros", "nonfinite", "dot"):
            np.testing.assert_array_equal(run.sums(row, quantity)[whole], other.sums(row, quantity)[whole])
    np.testing.assert_array_equal(run.scalar("loss")[whole], other.scalar("loss")[whole])
    assert np.isfinite(run.scalar("lr")[whole][1:]).all()


@pytest.mark.parametrize(
    ("kind", "saved", "told", "known"),
    [
        ("adam", 4, None, "whose weights are the present ones"),
        ("adam", 7, None, "whose weights are the present ones"),
        ("sgd", 4, None, "whose weights are the present ones"),
        ("sgd", 4, 4, "as step= says"),
    ],
)
def test_a_killed_run_goes_on(kind, saved, told, known, tmp_path, capfd):  # noqa: PLR0917
    path = killed(tmp_path, kind, saved=saved, killed=7)
    before = normkit.load(path)
    assert before.steps.tolist() == list(range(8))
    model, optimizer = loaded(tmp_path, kind)
    rec = nk.record(model, optimizer, to=path, every=1, resume=True, step=told)
    assert rec.path == path
    run = train(model, optimizer, rec, range(saved + 1, 11))
    said = capfd.readouterr().err
    assert f"goes on at step {saved}, {known}" in said
    assert "run.norms, attempt 2 (" in said
    assert_same(run, straight(tmp_path, kind, 10))
    assert run.meta["end"] == "finished"
    assert run.meta["steps"] == 10
    assert [one["began"] for one in run.meta["attempts"]] == [0, saved]
    assert [one.get("end") for one in run.meta["attempts"]] == ["killed", None]
    (event,) = [event for event in run.events if event.kind == "resumed"]
    assert (event.step, event.text) == (saved, f"goes on at step {saved}, {known}")
    assert rec.records == 11


@pytest.mark.parametrize(("kind", "told"), [("adam", None), ("sgd", 6)])
def test_a_checkpoint_between_two_records(kind, told, tmp_path):
    """Adam's state says where it stands; of plain SGD one must say it."""
    path = killed(tmp_path, kind, saved=6, killed=9, every=4)
    model, optimizer = loaded(tmp_path, kind)
    rec = nk.record(model, optimizer, to=path, every=4, resume=True, step=told, quiet=True)
    run = train(model, optimizer, rec, range(7, 14))
    other = straight(tmp_path, kind, 13, every=4)
    assert run.steps.tolist() == [0, 4, 6, 8, 12, 13]
    shared = np.flatnonzero(run.steps != 6)
    np.testing.assert_array_equal(run.matrix()[shared], other.matrix())


def test_nothing_tells_where_it_stands(tmp_path, capfd):
    path = killed(tmp_path, "sgd", saved=6, killed=9, every=4)
    model, optimizer = loaded(tmp_path, "sgd")
    rec = nk.record(model, optimizer, to=path, every=4, resume=True)
    run = train(model, optimizer, rec, [7])
    assert (
        "goes on at step 8, the last one recorded, as neither the weights nor the optimizer tell"
        in capfd.readouterr().err
    )
    assert run.steps.tolist() == [0, 4, 8, 9]


def test_resumed_twice(tmp_path):
    path = killed(tmp_path, "adam", saved=3, killed=5)
    model, optimizer = loaded(tmp_path, "adam")
    first = train(model, optimizer, nk.record(model, optimizer, to=path, every=1, resume=True, quiet=True), range(4, 9))
    assert first.steps.tolist() == list(range(9))
    model, optimizer = loaded(tmp_path, "adam")
    run = train(model, optimizer, nk.record(model, optimizer, to=path, every=1, resume=True, quiet=True), range(4, 12))
    assert_same(run, straight(tmp_path, "adam", 11))
    assert [(one["began"], one.get("end")) for one in run.meta["attempts"]] == [
        (0, "killed"),
        (3, "finished"),
        (3, None),
    ]


def test_a_finished_run_goes_on(tmp_path):
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train(model, optimizer, nk.record(model, optimizer, to=tmp_path / "run", every=1, quiet=True), range(1, 5))
    again = nk.record(model, optimizer, to=tmp_path / "run", every=1, resume=True, quiet=True)
    assert "end" not in normkit.load(tmp_path / "run.norms").meta
    run = train(model, optimizer, again, range(5, 9))
    assert_same(run, straight(tmp_path, "adam", 8))
    assert run.findings() == run.stored_findings()


def test_epochs_go_on(tmp_path):
    """An epoch ends behind its last record, and one that ended behind the step that is resumed has not ended."""
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    kept = {}
    with nk.record(model, optimizer, to=tmp_path / "run", every=3, quiet=True) as rec:
        for step in range(1, 13):
            one_step(model, optimizer, step)
            if step % 4 == 0:
                rec.epoch()
                kept[step] = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for saved, found in ((12, {9: 2, 12: 2, 15: 3}), (8, {6: 1, 9: 2, 12: 2})):
        model.load_state_dict(kept[saved][0])
        optimizer.load_state_dict(kept[saved][1])
        rec = nk.record(model, optimizer, to=tmp_path / "run", every=3, resume=True, step=saved, quiet=True)
        with rec:
            for step in range(saved + 1, saved + 5):
                one_step(model, optimizer, step)
            rec.epoch()
        run = normkit.load(rec.path)
        epochs = dict(zip(run.steps.tolist(), run.epochs.tolist(), strict=True))
        assert {step: epochs[step] for step in found} == found
    assert run.meta["epoch_ends"] == [[4, 1], [8, 2], [12, 3]]


def test_per_row_values_go_on(tmp_path):
    path = killed(tmp_path, "adam", saved=4, killed=6, per="out")
    model, optimizer = loaded(tmp_path, "adam")
    rec = nk.record(model, optimizer, to=path, every=1, per="out", resume=True, quiet=True)
    run = train(model, optimizer, rec, range(5, 9))
    other = straight(tmp_path, "adam", 8, per="out")
    assert_same(run, other, again=[4])
    for quantity in ("weight", "grad", "update"):
        found = run.rows("0.weight", quantity=quantity)
        assert found.shape == (9, 5)
        whole = run.steps != 4 if quantity != "weight" else slice(None)
        np.testing.assert_array_equal(found[whole], other.rows("0.weight", quantity=quantity)[whole])


def test_an_optimizer_that_was_old_when_its_recording_began(tmp_path):
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    for step in range(1, 4):
        one_step(model, optimizer, step)
    train(model, optimizer, nk.record(model, optimizer, to=tmp_path / "a", every=2, quiet=True), range(4, 9))
    one_step(model, optimizer, 9)
    rec = nk.record(model, optimizer, to=tmp_path / "a", every=2, resume=True, quiet=True)
    run = train(model, optimizer, rec, range(10, 12))
    assert run.steps.tolist() == [0, 2, 4, 5, 6, 8]
    assert run.meta["attempts"][-1]["began"] == 6


def test_the_commands_read_a_resumed_file(tmp_path):
    path = killed(tmp_path, "sgd", saved=4, killed=7)
    model, optimizer = loaded(tmp_path, "sgd")
    train(model, optimizer, nk.record(model, optimizer, to=path, every=1, resume=True, quiet=True), range(5, 9))
    done = subprocess.run(
        [sys.executable, "-m", "normkit", "show", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "0.weight" in done.stdout
    run = normkit.load(path)
    assert run.envelope(spans=3).records.sum() == 9
    json.dumps(run.meta)


@pytest.fixture
def batch_system(monkeypatch):
    for names in search.JOBS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(("job", "same"), [("17", True), ("18", False), (None, False)])
def test_auto_finds_the_file_of_its_job(job, same, tmp_path, batch_system):
    batch_system.chdir(tmp_path)
    batch_system.setenv("SLURM_JOB_ID", "17")
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    train(model, optimizer, nk.record(model, optimizer, every=1, resume="auto", quiet=True), range(1, 4))
    (first,) = Path("runs").glob("*.norms")
    batch_system.delenv("SLURM_JOB_ID")
    if job is not None:
        batch_system.setenv("SLURM_JOB_ID", job)
    rec = nk.record(model, optimizer, every=1, resume="auto", quiet=True)
    run = train(model, optimizer, rec, range(4, 6))
    assert (rec.path == first.absolute()) == same
    assert run.steps.tolist() == (list(range(6)) if same else [0, 1, 2])


def test_auto_begins_a_new_file_where_there_is_none(tmp_path):
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for _ in range(2):
        run = train(
            model, optimizer, nk.record(model, optimizer, to=tmp_path / "a", every=1, resume="auto", quiet=True), [1]
        )
    assert run.steps.tolist() == [0, 1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["a.norms"]
