"""What a recorder keeps alive, and for how long."""

import gc
import time
import weakref

import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import batch, net, one_step


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.norms"


def test_a_closed_recorder_keeps_no_model_alive(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, quiet=True) as rec:
        one_step(model, optimizer, 1)
    seen = weakref.ref(model[0])
    del model, optimizer
    gc.collect()
    assert seen() is None
    assert rec.steps == 1


def test_a_recorder_that_goes_out_of_scope_finishes_its_file(file):
    def train():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        nk.record(model, optimizer, to=file, every=10, quiet=True)
        for step in range(15):
            one_step(model, optimizer, step)

    train()
    gc.collect()
    deadline = time.monotonic() + 20
    while "end" not in normkit.load(file).meta and time.monotonic() < deadline:
        time.sleep(0.05)
    run = normkit.load(file)
    assert run.meta["end"] == "dropped"
    assert list(run.steps) == [0, 10, 15]


@pytest.mark.filterwarnings("ignore")  # torch warns of itself while it compiles an optimizer
def test_a_compiled_step_steps_over_the_recorder(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    frames = torch._dynamo.utils.counters["frames"]  # of the whole process
    before = frames["total"]
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        for number in range(3):
            optimizer.zero_grad()
            model(batch(number)[0]).sum().backward()
            step()
    assert list(normkit.load(rec.path).steps) == [0, 1, 2, 3]
    assert frames["total"] - before < 20
