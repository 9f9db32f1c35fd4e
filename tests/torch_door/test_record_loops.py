"""`nk.record` in loops of every shape: several optimizers, closures, accumulation, models that change."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import as64, assert_close, batch, net, one_step
from normkit.errors import StateError


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.norms"


def test_the_optimizer_alone(file):
    model = net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    with nk.record(optimizer, to=file, quiet=True) as rec:
        one_step(model, optimizer, 1)
    assert set(normkit.load(rec.path).tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_bare_tensors(file):
    w = torch.ones(3, 2, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.5)
    with nk.record(optimizer, to=file, quiet=True) as rec:
        (w.sum() * 2).backward()
        optimizer.step()
    run = normkit.load(rec.path)
    assert run.tensors == ("group0.0",)
    assert_close(run.series("group0.0", "l1"), [6.0, 0.0])
    assert_close(run.series("group0.0", "mean", "update")[1], -1.0)


def test_a_rule_whose_tensors_leave_the_model(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, select="2.*", every=1, quiet=True) as rec:
        one_step(model, optimizer, 1)
        model[2] = torch.nn.Identity()
        optimizer.zero_grad()
        model(batch(2)[0]).sum().backward()
        optimizer.step()
    run = normkit.load(rec.path)
    assert not rec.broken
    assert np.isfinite(run.series("2.weight")[:2]).all()
    assert [event.text for event in run.events] == ["from here on 0 tensors are recorded"]


def test_accumulation_counts_optimizer_steps(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        for step in range(12):
            x, y = batch(step)
            ((model(x) - y) ** 2).mean().backward()
            if step % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    assert list(normkit.load(rec.path).steps) == [0, 1, 2, 3]


def test_closures(file):
    model = net(dtype=torch.float64)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    x, y = batch(0, torch.float64)

    def closure():
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        return loss

    weights, grads = [as64(model[0].weight)], []
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        for _ in range(3):
            optimizer.step(closure)
            weights.append(as64(model[0].weight))
            grads.append(as64(model[0].weight.grad))
    run = normkit.load(rec.path)
    assert_close(run.series("0.weight"), [math.sqrt((w**2).sum()) for w in weights])
    assert_close(run.series("0.weight", quantity="grad")[1:], [math.sqrt((g**2).sum()) for g in grads])
    moved = [math.sqrt(((b - a) ** 2).sum()) for a, b in itertools.pairwise(weights)]
    assert_close(run.series("0.weight", quantity="update")[1:], moved)


def test_compiled_names_are_stripped(file):
    model = net()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1)
    with nk.record(compiled, optimizer, to=file, quiet=True) as rec:
        one_step(compiled, optimizer, 1)
    assert set(normkit.load(rec.path).tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_parameters_that_appear_vanish_and_thaw(file):
    model = net()
    model[2].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        one_step(model, optimizer, 1)
        model[2].weight.requires_grad_(True)
        one_step(model, optimizer, 2)
        model.append(torch.nn.Linear(3, 3))
        optimizer.add_param_group({"params": list(model[3].parameters())})
        one_step(model, optimizer, 3)
        del model[3]
        one_step(model, optimizer, 4)
    run = normkit.load(rec.path)
    assert not rec.broken
    assert np.isnan(run.series("2.weight")[:2]).all()
    assert np.isfinite(run.series("2.weight")[2:]).all()
    assert np.isfinite(run.series("3.weight")[3])
    assert not [finding for finding in rec.findings if finding.rule == "in-no-optimizer"]


def test_weights_that_move_to_other_memory_or_another_dtype(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        one_step(model, optimizer, 1)
        for p in model.parameters():
            p.data = p.data.clone() * 2
        one_step(model, optimizer, 2)
        doubled = math.sqrt((as64(model[0].weight) ** 2).sum())
        model.to(torch.bfloat16)
        before = as64(model[0].weight)
        one_step(model, optimizer, 3)
        moved = math.sqrt(((as64(model[0].weight) - before) ** 2).sum())
        model[2].weight.data = torch.cat([model[2].weight.data] * 2)
        model[2].bias.data = torch.cat([model[2].bias.data] * 2)
        optimizer.zero_grad()
        model(batch(4, torch.bfloat16)[0]).sum().backward()
        optimizer.step()
    run = normkit.load(rec.path)
    assert_close(run.series("0.weight")[2], doubled)
    assert_close(run.series("0.weight", quantity="update")[3], moved)
    assert_close(run.series("2.weight", "rms")[4], math.sqrt((as64(model[2].weight) ** 2).mean()))


def test_sparse_gradients(file):
    model = torch.nn.Embedding(6, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        before = as64(model.weight)
        model(torch.tensor([1, 1, 4])).sum().backward()
        dense = as64(model.weight.grad.to_dense())
        optimizer.step()
    run = normkit.load(rec.path)
    assert_close(run.series("weight", "l2", "grad")[1], math.sqrt((dense**2).sum()))
    assert_close(run.at(1)["weight"]["grad"].dot, (before * dense).sum(), rel=1e-6)
    assert run.series("weight", "zeros", "grad")[1] == 12


def test_a_parameter_without_gradient(file):
    model = net()
    model.extra = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        x, y = batch(1)
        for _ in range(2):
            optimizer.zero_grad()
            ((model[2](model[1](model[0](x))) - y) ** 2).mean().backward()
            optimizer.step()
    run = normkit.load(rec.path)
    assert np.isnan(run.series("extra.weight", quantity="grad")).all()
    assert run.series("extra.weight", quantity="update")[1] == 0


def test_a_model_without_parameters(file):
    with nk.record(torch.nn.ReLU(), to=file, quiet=True) as rec:
        rec.step()
    assert list(normkit.load(rec.path).steps) == [0, 1]


def test_steps_by_hand(file):
    model = net(dtype=torch.float64)
    weights = [as64(model[0].weight)]
    with nk.record(model, to=file, every=1, quiet=True) as rec:
        for step in range(1, 4):
            x, y = batch(step, torch.float64)
            model.zero_grad()
            ((model(x) - y) ** 2).mean().backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
            rec.step()
            weights.append(as64(model[0].weight))
    run = normkit.load(rec.path)
    moved = [math.sqrt(((b - a) ** 2).sum()) for a, b in itertools.pairwise(weights)]
    assert_close(run.series("0.weight", quantity="update")[1:], moved)
    assert_close(run.series("0.weight", quantity="grad")[1:], [m / 0.1 for m in moved])


def test_steps_by_hand_of_a_model_that_grows(file):
    model = net()
    with nk.record(model, to=file, every=1, quiet=True) as rec:
        for step in range(1, 4):
            if step == 2:
                model.append(torch.nn.Linear(3, 3))
            model.zero_grad()
            model(batch(step)[0]).sum().backward()
            rec.step()
    run = normkit.load(rec.path)
    assert np.isnan(run.series("3.weight")[:2]).all()
    assert np.isfinite(run.series("3.weight")[2:]).all()
    assert np.isfinite(run.series("3.weight", quantity="grad")[2:]).all()


def test_steps_by_hand_are_refused_beside_an_optimizer(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        nk.record(model, optimizer, to=file, quiet=True) as rec,
        pytest.raises(StateError, match="SGD counts the steps"),
    ):
        rec.step()
