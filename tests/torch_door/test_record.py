"""`nk.record`: what stands in a recording is what a float64 NumPy reference says, whatever the loop looks like."""

import copy
import itertools
import math
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from normkit.errors import ArgumentError, FileError, ModelError, StateError


def net(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).to(dtype)


def batch(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, generator=generator).to(dtype), torch.randn(4, 3, generator=generator).to(dtype)


def one_step(model, optimizer, seed, *, zero=True):
    x, y = batch(seed, next(model.parameters()).dtype)
    if zero:
        optimizer.zero_grad()
    loss = ((model(x) - y) ** 2).mean()
    loss.backward()
    optimizer.step()
    return loss.detach()


def as64(tensor):
    return tensor.detach().to(torch.float64).numpy().copy()


def assert_close(given, expected, rel=1e-12):
    assert np.shape(given) == np.shape(expected)
    np.testing.assert_allclose(given, expected, rtol=rel, atol=0)


def test_assert_close_can_fail():
    with pytest.raises(AssertionError):
        assert_close([1.0], [1.0 + 1e-9])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.norms"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["SGD", "AdamW", "nesterov"])
def test_every_number_of_every_step(file, dtype, kind):
    model = net(dtype=dtype)
    made = {
        "SGD": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
        "AdamW": lambda: torch.optim.AdamW(model.parameters(), lr=0.01),
        "nesterov": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True),
    }
    optimizer = made[kind]()
    weights, grads = [{n: as64(p) for n, p in model.named_parameters()}], [None]
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        for step in range(1, 8):
            x, y = batch(step, dtype)
            optimizer.zero_grad()
            ((model(x) - y) ** 2).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            grads.append({n: as64(p.grad) for n, p in model.named_parameters()})
            optimizer.step()
            weights.append({n: as64(p) for n, p in model.named_parameters()})
    run = normkit.load(rec.path)
    assert list(run.steps) == list(range(8))
    assert set(run.tensors) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    for name in run.tensors:
        assert_close(run.series(name, "l2"), [np.sqrt((w[name] ** 2).sum()) for w in weights])
        assert_close(run.series(name, "linf"), [np.abs(w[name]).max() for w in weights])
        assert_close(run.series(name, "l1", "grad")[1:], [np.abs(g[name]).sum() for g in grads[1:]])
        moved = [b[name] - a[name] for a, b in itertools.pairwise(weights)]
        assert_close(run.series(name, "l2", "update")[1:], [np.sqrt((d**2).sum()) for d in moved])
        for step in range(1, 8):
            stats = run.at(step)[name]
            before = weights[step - 1][name]
            scale = np.abs(before).max() * before.size
            assert abs(stats["grad"].dot - (before * grads[step][name]).sum()) < 1e-12 * scale
            assert abs(stats["update"].dot - (before * moved[step - 1]).sum()) < 1e-12 * scale
    assert np.isnan(run.series("0.weight", "l2", "grad")[0])


def state_of(model, optimizer):
    return {
        "params": [as64(p) for p in model.parameters()],
        "buffers": [as64(b) for b in model.buffers()],
        "grads": [as64(p.grad) for p in model.parameters()],
        "optimizer": [as64(v) for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)],
        "random": torch.get_rng_state().numpy(),
    }


def assert_bit_equal(given, expected):
    assert given.keys() == expected.keys()
    for key in expected:
        a, b = given[key], expected[key]
        assert len(a) == len(b), key
        assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True)), key


def test_assert_bit_equal_can_fail():
    with pytest.raises(AssertionError):
        assert_bit_equal({"a": [np.ones(2)]}, {"a": [np.ones(2) + 1e-16 * 4]})


def fifty_steps(kind, recorded, path):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.BatchNorm1d(5), torch.nn.Dropout(0.3), torch.nn.Linear(5, 3)
    )
    torch.nn.utils.parametrizations.spectral_norm(model[3])
    run = torch.compile(model, backend="eager") if kind == "compiled" else model
    fused = kind == "AdamW-fused-amp"
    if kind == "SGD":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    amp = "amp" in kind
    scaler = torch.amp.GradScaler("cpu", enabled=amp, init_scale=2.0**10, growth_interval=7)
    rec = nk.record(run, optimizer, to=path, every=2, select="all", quiet=True) if recorded else None
    for step in range(50):
        x, y = batch(step)
        if amp and step in (3, 20):
            x = x * math.inf
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            loss = ((run(x) - y) ** 2).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    state = state_of(model, optimizer)
    if rec:
        rec.close()
    return state, rec, model


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "AdamW-amp", "AdamW-fused-amp", "compiled"])
def test_recording_changes_nothing(kind, file):
    bare, _, _ = fifty_steps(kind, False, None)
    state, rec, _ = fifty_steps(kind, True, file)
    assert_bit_equal(state, bare)
    assert rec.steps == (48 if "amp" in kind else 50)
    assert normkit.load(rec.path).steps[-1] == rec.steps


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_is_divided_out_and_its_skipped_steps_are_none(file, fused):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    truth = []
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        for step in range(6):
            x, y = batch(step)
            x = x * (math.inf if step == 2 else 1.0)
            optimizer.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            if step != 2:
                grad = torch.autograd.grad(loss, model[0].weight, retain_graph=True)[0]
                truth.append(math.sqrt((as64(grad) ** 2).sum()))
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    run = normkit.load(rec.path)
    assert list(run.steps) == [0, 1, 2, 3, 4, 5]
    assert_close(run.series("0.weight", "l2", "grad")[1:], truth, rel=1e-5)
    assert not run.matrix("nonfinite", "grad")[1:].any()


def test_a_step_skipped_on_the_device_is_dropped_later(file):
    """What an accelerator does: `found_inf` is known there only and travels with the record."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        rec._reads = lambda found: False
        for step in range(1, 7):
            optimizer.found_inf = torch.tensor(1.0 if step in (2, 3) else 0.0)
            one_step(model, optimizer, step)
    assert list(normkit.load(rec.path).steps) == [0, 1, 2, 3, 4]


def test_steps_recorded(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=nk.Every(10, first=3), quiet=True) as rec:
        for step in range(25):
            one_step(model, optimizer, step)
    run = normkit.load(rec.path)
    assert list(run.steps) == [0, 1, 2, 3, 10, 20, 25]
    assert_close(run.series("0.weight")[-1], math.sqrt((as64(model[0].weight) ** 2).sum()))
    assert np.isnan(run.series("0.weight", quantity="update")[-1])


def test_a_function_is_asked_after_each_step(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    asked = []

    def wanted(step):
        asked.append(step)
        return step in (2, 5)

    with nk.record(model, optimizer, to=file, every=wanted, quiet=True) as rec:
        for step in range(7):
            one_step(model, optimizer, step)
    assert asked == [1, 2, 3, 4, 5, 6, 7]
    run = normkit.load(rec.path)
    assert list(run.steps) == [0, 2, 5, 7]
    assert np.isfinite(run.series("0.weight", quantity="update")[1:3]).all()


def test_epochs(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=nk.Every(epochs=2), quiet=True) as rec:
        for _ in range(4):
            for step in range(5):
                one_step(model, optimizer, step)
            rec.epoch()
    run = normkit.load(rec.path)
    assert list(run.steps) == [0, 10, 20]
    assert list(run.epochs[1:]) == [2, 4]


def test_auto_is_stretched_and_says_so(file, monkeypatch, capsys):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clock = {"now": 0.0}
    monkeypatch.setattr("normkit.recording.schedule.time.perf_counter", lambda: clock["now"])
    with nk.record(model, optimizer, to=file, overhead=0.05) as rec:
        columns = rec._owned[0]
        fast = columns.after
        monkeypatch.setattr(columns, "after", lambda what: (clock.update(now=clock["now"] + 0.2), fast(what))[1])
        for step in range(300):
            clock["now"] += 1.0
            one_step(model, optimizer, step)
    assert rec.schedule.spent - 0.2 * 3 <= 300 * 0.05
    assert rec.schedule.passed_over > 0
    run = normkit.load(rec.path)
    assert 20 < len(run.steps) < 100
    assert "stretched" in run.meta["every"]
    assert "stretched to stay under 5 %" in capsys.readouterr().err


def test_log_goes_with_the_step_just_made(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    losses = []
    with nk.record(model, optimizer, to=file, every=2, quiet=True) as rec:
        for step in range(1, 7):
            loss = one_step(model, optimizer, step)
            scheduler.step()
            rec.log(loss=loss, accuracy=np.float32(0.5))
            losses.append(float(loss))
        with pytest.raises(ArgumentError, match=r"log\(loss=\.\.\.\): expected one number, got shape \(3,\)"):
            rec.log(loss=torch.ones(3))
    run = normkit.load(rec.path)
    assert_close(run.scalar("loss")[1:], losses[1::2])
    assert_close(run.scalar("lr")[1:], [0.1 * 0.5, 0.1 * 0.5**3, 0.1 * 0.5**5])
    assert run.scalar("accuracy")[-1] == 0.5


def test_a_scalar_that_comes_late(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        one_step(model, optimizer, 1)
        time.sleep(0.6)  # the row is in the file by now
        rec.log(loss=3.5)
    assert normkit.load(rec.path).scalar("loss")[1] == 3.5


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
    assert_close(run.series("b.0.weight", quantity="update")[1:4], moved[:3])


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


def test_steps_by_hand_are_refused_beside_an_optimizer(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        nk.record(model, optimizer, to=file, quiet=True) as rec,
        pytest.raises(StateError, match="SGD counts the steps"),
    ):
        rec.step()


def test_effective_weights_beside_their_parts(file):
    model = torch.nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 5)),
        torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(5, 3)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    u = model[1].parametrizations.weight[0]._u.clone()
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        model.eval()
        one_step(model, optimizer, 1)
        effective = as64(model[0].weight)
    run = normkit.load(rec.path)
    assert {"0.weight", "0.weight.g", "0.weight.v", "1.weight"} <= set(run.tensors)
    assert_close(run.series("0.weight")[1], math.sqrt((effective**2).sum()), rel=1e-6)
    assert np.isfinite(run.series("0.weight", quantity="update")[1])
    assert torch.equal(model[1].parametrizations.weight[0]._u, u)


def test_nan_is_stored(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        one_step(model, optimizer, 1)
        with torch.no_grad():
            model[0].weight[0, 0] = math.nan
        one_step(model, optimizer, 2)
    run = normkit.load(rec.path)
    assert run.series("0.weight", "nonfinite")[2] >= 1
    assert math.isnan(run.series("0.weight", "l2")[2])
    assert any(finding.rule == "non-finite" for finding in rec.findings)


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


def test_norms_now():
    model = net()
    values = nk.norms(model, "l2")
    assert set(values) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert_close(values["0.weight"], math.sqrt((as64(model[0].weight) ** 2).sum()))
    rows = nk.norms(model, "l1", per="out", select="kernel")
    assert_close(rows["0.weight"], np.abs(as64(model[0].weight)).sum(1))
    assert_close(nk.norms(model, "spectral")["2.weight"], np.linalg.svd(as64(model[2].weight))[1][0])
