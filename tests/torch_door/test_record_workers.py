"""A recording while worker processes come, live and crash: forked children that hold copies of all that is open."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


class Numbers(torch.utils.data.Dataset):
    """Eight items; what else happens when one is taken is up to `then`, in the worker's process."""

    def __init__(self, then=None):
        self.then = then

    def __len__(self):
        return 8

    def __getitem__(self, at):
        if self.then is not None:
            self.then(at)
        return torch.full((6,), float(at))


def loader(then=None, **more):
    return torch.utils.data.DataLoader(
        Numbers(then), batch_size=2, num_workers=2, multiprocessing_context="fork", **more
    )


def trained(path, batches, epochs=2, flush=True):
    """A closed recording of training over the batches, flushed at each step so that forks meet a busy writer."""
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rec = nk.record(model, optimizer, to=path, every=1, quiet=True)
    try:
        for _ in range(epochs):
            for x in batches:
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
                if flush:
                    rec._writer.flush()
    finally:
        rec.close()
    return rec


def assert_same(path, other):
    run, expected = normkit.load(path), normkit.load(other)
    assert run.steps.tolist() == expected.steps.tolist()
    for quantity in ("weight", "grad", "update"):
        np.testing.assert_array_equal(run.sums("sq", quantity), expected.sums("sq", quantity))
    assert sorted(each.name for each in Path(path).parent.glob(f"{Path(path).name}*")) == [Path(path).name]


@pytest.fixture
def expected(tmp_path):
    return trained(tmp_path / "plain.norms", torch.utils.data.DataLoader(Numbers(), batch_size=2)).path


def test_workers_that_outlive_the_recording(tmp_path, expected):
    batches = loader(persistent_workers=True)
    rec = trained(tmp_path / "a.norms", batches)
    assert all(worker.is_alive() for worker in batches._iterator._workers)
    assert_same(rec.path, expected)
    batches._iterator._shutdown_workers()
    assert_same(rec.path, expected)


# torch raises the error in a signal handler, and so wherever the program is: in a callback of the garbage collector
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_worker_that_crashes(tmp_path, expected):
    with pytest.raises(RuntimeError, match=r"worker .* exited unexpectedly"):
        trained(tmp_path / "a.norms", loader(lambda at: os._exit(1) if at == 6 else None), flush=False)
    run = normkit.load(tmp_path / "a.norms")
    steps = run.steps.tolist()
    assert steps == list(range(len(steps)))
    np.testing.assert_array_equal(run.sums("sq"), normkit.load(expected).sums("sq")[: len(steps)])


def reads(path):
    """What a worker may do to a recording that its parent is writing: read it, copy it."""

    def then(at):
        run = normkit.load(path)
        assert run.steps.tolist() == list(range(len(run)))
        assert np.isfinite(run.sums("sq")).all()
        Path(path).read_bytes()

    return then


def test_workers_that_read_the_recording(tmp_path, expected):
    path = tmp_path / "a.norms"
    assert_same(trained(path, loader(reads(path))).path, expected)


ORPHAN = """
import os, signal, sys, torch
import normkit.torch as nk
model = torch.nn.Linear(6, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
rec = nk.record(model, optimizer, to=sys.argv[1], every=1, quiet=True)

def train(steps):
    for _ in range(steps):
        model(torch.ones(6)).sum().backward()
        optimizer.step()
        rec._writer.flush()

train(5)
if os.fork() == 0:
    print("there", flush=True)
    sys.stdin.readline()
    sys.exit()
train(5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_orphan_of_a_killed_process_holds_nothing_up(tmp_path):
    """It has the file open still, and leaves in the ordinary way when others have used the file meanwhile."""
    path = tmp_path / "a.norms"
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "there\n"
        process.wait(60)
        assert normkit.load(path).steps.tolist() == list(range(11))
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read() == ""  # until the orphan is gone, too
    assert normkit.load(path).steps.tolist() == list(range(11))
    assert [each.name for each in tmp_path.iterdir()] == ["a.norms"]
