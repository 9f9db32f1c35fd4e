"""`nk.record`: what stands in a recording is what a float64 NumPy reference says, whatever the loop looks like."""

import itertools
import math
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import normkit
import normkit.torch as nk
from loops import as64, assert_close, batch, net, one_step


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
                rec.log(loss=one_step(model, optimizer, step) * 0 + step)
            rec.epoch()
    run = normkit.load(rec.path)
    assert list(run.steps) == [0, 10, 20]
    assert list(run.scalar("loss")[1:]) == [4.0, 4.0]
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
        for bad, shape in ((torch.ones(3), r"shape \(3,\)"), (None, "'NoneType'"), (10**400, "'int'")):
            with pytest.warns(RuntimeWarning, match=rf"log\(bad=\.\.\.\): expected one number, got {shape}; it is not"):
                rec.log(bad=bad, one=np.ones(1))
    run = normkit.load(rec.path)
    assert_close(run.scalar("loss")[1:], losses[1::2])
    assert_close(run.scalar("lr")[1:], [0.1 * 0.5, 0.1 * 0.5**3, 0.1 * 0.5**5])
    assert run.scalar("accuracy")[-1] == 0.5
    assert "bad" not in run.scalar_names
    assert run.scalar("one")[-1] == 1.0


def test_a_scalar_that_comes_late(file):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nk.record(model, optimizer, to=file, every=1, quiet=True) as rec:
        one_step(model, optimizer, 1)
        time.sleep(0.6)  # the row is in the file by now
        rec.log(loss=3.5)
    assert normkit.load(rec.path).scalar("loss")[1] == 3.5


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


def test_norms_now():
    model = net()
    values = nk.norms(model, "l2")
    assert set(values) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert_close(values["0.weight"], math.sqrt((as64(model[0].weight) ** 2).sum()))
    rows = nk.norms(model, "l1", per="out", select="kernel")
    assert_close(rows["0.weight"], np.abs(as64(model[0].weight)).sum(1))
    assert_close(nk.norms(model, "spectral")["2.weight"], np.linalg.svd(as64(model[2].weight))[1][0])
