"""`nk.record` with several optimizers: one round of steps is one record."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import as64, assert_close, batch, net, one_step


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.norms"


def test_several_optimizers_the_first_counts(file):
    a, b = net(0), net(1)
    first, second = torch.optim.SGD(a.parameters(), lr=0.1), torch.optim.SGD(b.parameters(), lr=0.1)
    seen, moved = [], []
    with nk.record({"a": a, "b": b}, [first, second], to=file, every=1, quiet=True) as rec:
        for step in range(1, 5):
            before = as64(b[0].weight)
            for inner in range(3):
                before = as64(b[0].weight)
                one_step(b, second, 10 * step + inner)
            moved.append(math.sqrt(((as64(b[0].weight) - before) ** 2).sum()))
            one_step(a, first, step)
            seen.append(math.sqrt((as64(b[0].weight) ** 2).sum()))
        one_step(b, second, 99)
    run = normkit.load(rec.path)
    assert list(run.steps) == [0, 1, 2, 3, 4]
    assert_close(run.series("b.0.weight")[1:4], seen[:3])
    assert_close(run.series("b.0.weight")[4], math.sqrt((as64(b[0].weight) ** 2).sum()))
    assert_close(run.series("b.0.weight", quantity="update")[1:], moved)
    assert np.isfinite(run.matrix("l2", "grad")[1:]).all()
    assert np.isfinite(run.scalar("lr")[1:]).all()


@pytest.mark.parametrize("counts_first", [True, False])
@pytest.mark.parametrize("every", [1, 3])
def test_one_round_is_one_record_whatever_the_order(file, counts_first, every):
    models = {"a": net(0), "b": net(1)}
    optimizers = {name: torch.optim.SGD(models[name].parameters(), lr=lr) for name, lr in (("a", 0.1), ("b", 0.05))}
    order = ("a", "b") if counts_first else ("b", "a")
    truth = []
    with nk.record(models, [optimizers["a"], optimizers["b"]], to=file, every=every, quiet=True) as rec:
        for step in range(1, 8):
            row = {}
            for name in order:
                before = as64(models[name][0].weight)
                one_step(models[name], optimizers[name], step)
                after, grad = as64(models[name][0].weight), as64(models[name][0].weight.grad)
                row[name] = [math.sqrt((x**2).sum()) for x in (after, grad, after - before)]
            rec.log(loss=step)
            truth.append(row)
    run = normkit.load(rec.path)
    steps = [step for step in range(1, 8) if step % every == 0]
    assert list(run.steps) == sorted({0, *steps, 7})
    for name in models:
        for k, quantity in enumerate(("weight", "grad", "update")):
            found = run.series(f"{name}.0.weight", "l2", quantity)[1 : len(steps) + 1]
            assert_close(found, [truth[step - 1][name][k] for step in steps])
    assert_close(run.series("b.0.weight")[-1], truth[-1]["b"][0])
    assert list(run.scalar("loss")[1:]) == list(run.steps[1:])
    assert set(run.scalar("optimizer1.lr")[1 : len(steps) + 1]) == {0.05}


def test_a_model_that_grows_between_the_steps_of_a_round(file):
    models = {"a": net(0), "b": net(1)}
    first, second = (torch.optim.SGD(models[name].parameters(), lr=0.1) for name in "ab")
    with nk.record(models, [first, second], to=file, every=1, quiet=True) as rec:
        for step in range(1, 5):
            one_step(models["a"], first, step)
            if step == 3:
                models["a"].insert(0, torch.nn.Linear(6, 6))
            one_step(models["b"], second, step)
            held = math.sqrt((as64(models["b"][0].weight) ** 2).sum())
    run = normkit.load(rec.path)
    assert not rec.broken
    assert list(run.steps) == [0, 1, 2, 3, 4]
    assert_close(run.series("b.0.weight")[-1], held)
    assert np.isfinite(run.series("b.0.weight", quantity="update")[[1, 2, 4]]).all()
    assert np.isfinite(run.series("a.3.weight")[4])


def test_the_last_record_has_the_rate_of_the_last_step(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with nk.record(model, optimizer, to=file, every=3, quiet=True) as rec:
        for step in range(5):
            one_step(model, optimizer, step)
            scheduler.step()
    run = normkit.load(rec.path)
    assert list(run.steps) == [0, 3, 5]
    assert_close(run.scalar("lr")[1:], [0.5**2, 0.5**4])


def test_a_group_that_once_differed_keeps_its_rate(file):
    model = net()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        for step, rate in enumerate((0.2, 0.1, 0.05)):
            optimizer.param_groups[1]["lr"] = rate
            one_step(model, optimizer, step)
    assert_close(normkit.load(rec.path).scalar("lr.1")[1:], [0.2, 0.1, 0.05])


def test_an_optimizer_stepped_inside_backward(file):
    model = net()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step_now(p):
        optimizers[p].step()
        optimizers[p].zero_grad()

    truth = []
    rec = nk.record(model, list(optimizers.values()), to=file, every=1, quiet=True)
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step_now)
    for step in range(1, 5):
        x, y = batch(step)
        loss = ((model(x) - y) ** 2).mean()
        grads = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        truth.append([math.sqrt((as64(g) ** 2).sum()) for g in grads])
        loss.backward()
    rec.close()
    run = normkit.load(rec.path)
    assert run.steps[-1] == 4
    names = [n for n, _ in model.named_parameters()]
    got = np.array([run.series(n, "l2", "grad")[1:] for n in names]).T
    # the first optimizer's parameter steps at any place in backward: every gradient is this step's or the one before
    for row, name in enumerate(names):
        fresh = np.allclose(got[:, row], np.array(truth)[:, row], rtol=1e-6)
        before = np.allclose(got[1:, row], np.array(truth)[:-1, row], rtol=1e-6)
        assert fresh or before, name
