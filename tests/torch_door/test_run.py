"""A script that knows nothing of normkit is recorded: models, names and optimizers are found."""

import gc
import itertools
import threading
import weakref

import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from normkit.recording.options import Options
from normkit.torch.run import apart, arm, models_of


def steps(model, *optimizers, count=3, size=4):
    for _ in range(count):
        for optimizer in optimizers:
            optimizer.zero_grad()
            model(torch.ones(2, size)).sum().backward()
            optimizer.step()


@pytest.fixture
def session(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    gc.collect()
    armed = arm(Options(to=str(tmp_path / "runs" / "script.norms"), every=1))
    yield armed
    armed.close()
    capsys.readouterr()


def test_nothing_happens_without_an_optimizer(session, tmp_path):
    torch.nn.Linear(4, 2)(torch.ones(1, 4))
    assert session.close() is None
    assert not list(tmp_path.iterdir())


def test_names_come_from_the_model(session):
    def main():
        net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
        steps(net, torch.optim.SGD(net.parameters(), lr=0.1))

    main()
    run = normkit.load(session.close())
    assert run.tensors == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert run.steps.tolist() == [0, 1, 2, 3]


def test_two_models_bear_the_names_of_their_variables(session):
    netG, netD = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    first, second = (torch.optim.SGD(net.parameters(), lr=0.1) for net in (netD, netG))
    for _ in range(2):
        steps(netD, first, count=1)
        steps(netG, second, count=1)
    run = normkit.load(session.close())
    assert set(run.tensors) == {"netG.weight", "netG.bias", "netD.weight", "netD.bias"}
    assert run.steps.tolist() == [0, 1, 2]


def test_a_later_optimizer_begins_another_recording(session):
    for _ in range(2):
        net = torch.nn.Linear(4, 2)
        steps(net, torch.optim.SGD(net.parameters(), lr=0.1))
    session.close()
    assert [normkit.load(path).steps.tolist() for path in session.paths] == [[0, 1, 2, 3]] * 2


def test_models_made_first_and_trained_one_after_the_other(session):
    nets = [torch.nn.Linear(4, 2) for _ in range(2)]
    optimizers = [torch.optim.SGD(net.parameters(), lr=1e-3) for net in nets]
    for net, optimizer in zip(nets, optimizers, strict=True):
        steps(net, optimizer, count=300)
    session.close()
    runs = [normkit.load(path) for path in session.paths]
    assert [len(run.tensors) for run in runs] == [4, 2]
    assert runs[0].steps[-1] == 300
    assert 90 <= runs[1].steps[-1] <= 100


def test_models_that_the_script_drops_are_not_kept_alive(session):
    def fold():
        net = torch.nn.Linear(4, 2)
        steps(net, torch.optim.SGD(net.parameters(), lr=0.1))
        return weakref.ref(net)

    dropped = [fold() for _ in range(3)]
    assert [ref() is None for ref in dropped[:2]] == [True, True]  # the third goes with the next collection
    gc.collect()
    assert dropped[2]() is None
    session.close()
    for thread in threading.enumerate():
        if thread.name == "normkit writer":  # whoever drops a recording does not wait for its file
            thread.join(30)
    runs = [normkit.load(path) for path in session.paths]
    assert [run.steps.tolist() for run in runs] == [[0, 1, 2, 3]] * 3
    assert [run.meta["end"] for run in runs] == ["dropped"] * 3


def test_a_script_that_records_itself_is_recorded_once(session, tmp_path):
    net = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with nk.record(net, optimizer, to=tmp_path / "own"):
        steps(net, optimizer)
    assert session.close() is None
    assert session.refused == "the script records itself"
    assert [path.name for path in tmp_path.rglob("*.norms")] == ["own.norms"]


def test_a_failure_leaves_the_script_alone(session, monkeypatch):
    monkeypatch.setattr("normkit.torch.run.begin", lambda *a, **k: 1 / 0)
    net = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.warns(RuntimeWarning, match="normkit does not record SGD .*division by zero.* the script goes on"):
        steps(net, optimizer)


def test_the_outermost_module_is_the_model():
    inner = torch.nn.Linear(2, 2)
    outer = torch.nn.Sequential(torch.nn.Sequential(inner), torch.nn.ReLU())
    assert models_of([torch.optim.SGD(inner.parameters(), lr=0.1)]) is outer


def test_bare_tensors_have_no_model():
    assert models_of([torch.optim.SGD([torch.ones(2, requires_grad=True)], lr=0.1)]) is None


def test_modules_sharing_parameters_are_not_both_taken():
    net = torch.nn.Linear(2, 2)
    twins = [torch.nn.Sequential(net), torch.nn.Sequential(net, torch.nn.Linear(2, 2))]
    optimizer = torch.optim.SGD(itertools.chain(*(twin.parameters() for twin in twins[1:])), lr=0.1)
    assert models_of([optimizer]) is twins[1]


class Wrapper(torch.optim.Optimizer):
    """What other libraries put around an optimizer: one by its class, without what an optimizer has."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def step(self):
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()


class Around(torch.optim.Optimizer):
    """One that has its own step around another's, over the same tensors."""

    def __init__(self, optimizer):
        super().__init__(optimizer.param_groups, {})
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


@pytest.mark.parametrize("wrap", [Wrapper, Around])
def test_an_optimizer_around_another_is_recorded_once(wrap, session):
    net, other = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
    wrapped = wrap(torch.optim.SGD(net.parameters(), lr=0.1))
    second = wrap(torch.optim.SGD(other.parameters(), lr=0.1))
    for _ in range(3):
        steps(net, wrapped, count=1)
        steps(other, second, count=1)
    session.close()
    (path,) = session.paths
    run = normkit.load(path)
    assert run.steps.tolist() == [0, 1, 2, 3]
    assert len(run.tensors) == 4


def test_optimizers_apart_hold_no_tensor_twice():
    w, v = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    first, second, both = (torch.optim.SGD(tensors, lr=0.1) for tensors in ([w], [v], [w, v]))
    assert apart([first, both, second]) == [first, second]
    assert apart([Wrapper(first), first]) == [first]


def test_optimizers_from_before_the_session_are_not_joined(tmp_path, capsys):
    old, new = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
    before = torch.optim.SGD(old.parameters(), lr=0.1)
    armed = arm(Options(to=str(tmp_path / "mine"), every=1, quiet=True))
    steps(new, torch.optim.SGD(new.parameters(), lr=0.1))
    assert normkit.load(armed.close()).tensors == ("weight", "bias")
    assert before.param_groups
