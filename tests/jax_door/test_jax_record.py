"""A recorder of JAX training against norms computed independently, on jitted and donating steps."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

import normkit
import reference

jax = pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp

import normkit.jax as nk

NAMES = ("dense_0.b", "dense_0.w", "dense_1.b", "dense_1.w")


def net(dtype="float32"):
    rng = np.random.default_rng(0)
    sizes = ((4, 8), (8, 1))
    return {
        f"dense_{i}": {"w": jnp.asarray(rng.standard_normal(size), dtype), "b": jnp.zeros(size[1], dtype)}
        for i, size in enumerate(sizes)
    }


def batch(i):
    return jnp.asarray(np.random.default_rng(i).standard_normal((16, 4)), jnp.float32)


def loss(params, x):
    h = jnp.tanh(x @ params["dense_0"]["w"] + params["dense_0"]["b"])
    return ((h @ params["dense_1"]["w"] + params["dense_1"]["b"] - 1.0) ** 2).mean()


OPTIMIZER = optax.adamw(1e-2)


def plain_step(params, state, x, stats=None):
    value, grads = jax.value_and_grad(loss)(params, x)
    updates, state = OPTIMIZER.update(grads, state, params)
    new = optax.apply_updates(params, updates)
    taken = None if stats is None else stats(new, params, grads, updates)
    return new, state, value, taken


def by_updates(new, old, grads, updates):
    return nk.stats(params=new, grads=grads, updates=updates)


def by_before(new, old, grads, updates):
    return nk.stats(params=new, grads=grads, before=old)


@functools.cache
def jitted(stats=None, donate=True):
    return jax.jit(functools.partial(plain_step, stats=stats), donate_argnums=(0, 1) if donate else ())


def train(recorder, steps, stats=by_updates, call=lambda recorder, taken, new: recorder(taken)):
    """Losses and the weights after each step; the first weights are donated, as those of each step are."""
    params, state = net(), OPTIMIZER.init(net())
    after = [named(params)]
    losses = []
    for i in range(steps):
        params, state, value, taken = jitted(stats)(params, state, batch(i))
        call(recorder, taken, params)
        recorder.log(loss=value)
        losses.append(float(value))
        after.append(named(params))
    return losses, after


def named(params):
    return {f"{layer}.{name}": np.array(params[layer][name], np.float64) for layer in params for name in params[layer]}


def start(tmp_path, **words):
    words = {"params": net(), "every": 1, "quiet": True, **words}
    return nk.record(tmp_path / "a", **words)


def l2(x):
    return reference.norm_of(x, "l2")


@pytest.mark.parametrize("stats", [by_updates, by_before])
def test_every_norm_of_64_donating_steps(stats, tmp_path):
    with start(tmp_path) as recorder:
        losses, after = train(recorder, 64, stats)
    run = normkit.load(recorder.path)
    assert run.tensors == NAMES
    assert run.steps.tolist() == list(range(65))
    assert run.scalar("loss")[1:].tolist() == losses
    exact = 1e-12 if stats is by_before else 1e-5  # an update is rounded when it is added
    for name in NAMES:
        weights = [values[name] for values in after]
        for kind in ("l1", "l2", "linf", "mean", "zeros"):
            expected = [reference.norm_of(w, kind) for w in weights]
            assert run.series(name, kind) == pytest.approx(expected, rel=1e-12, abs=1e-14)
        changes = [l2(b - a) for a, b in itertools.pairwise(weights)]
        assert run.series(name, "l2", "update")[1:] == pytest.approx(changes, rel=exact * 10)


@pytest.mark.parametrize("stats", [by_updates, by_before])
def test_dot_products_are_with_the_weights_before_the_step(stats, tmp_path):
    with start(tmp_path) as recorder:
        train(recorder, 3, stats)
    run = normkit.load(recorder.path)
    params, state = net(), OPTIMIZER.init(net())
    gradient, step = jax.jit(jax.grad(loss)), jitted(donate=False)
    for i in range(3):
        old, grads = named(params), named(gradient(params, batch(i)))
        params, state, *_ = step(params, state, batch(i))
        new = named(params)
        for name in NAMES:
            dots = [run.sums("dot", quantity=q)[i + 1, run.tensors.index(name)] for q in ("grad", "update")]
            expected = [(old[name] * grads[name]).sum(), (old[name] * (new[name] - old[name])).sum()]
            assert dots == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_trees_given_outside_of_jit_may_be_donated_to_the_next_step(tmp_path):
    with start(tmp_path) as recorder:
        _, after = train(recorder, 12, None, lambda recorder, _, new: recorder(params=new))
    found = normkit.load(recorder.path).series("dense_0.w")
    assert found == pytest.approx([l2(values["dense_0.w"]) for values in after], rel=1e-12)


def test_gradients_and_updates_given_outside_of_jit(tmp_path):
    old, new = net(), jax.tree.map(lambda x: x * 1.5 + 1, net())
    with start(tmp_path, params=old) as recorder:
        recorder(1, params=new, before=old, grads=new)
    run = normkit.load(recorder.path)
    w, before = named(new)["dense_0.w"], named(old)["dense_0.w"]
    place = run.tensors.index("dense_0.w")
    assert run.series("dense_0.w", "l2", "update")[1] == pytest.approx(l2(w - before), rel=1e-12)
    assert run.sums("dot", quantity="grad")[1, place] == pytest.approx((w * before).sum(), rel=1e-12)


def test_recording_changes_nothing_of_the_training():
    ends = []
    for stats in (None, by_updates, by_before):
        params, state = net(), OPTIMIZER.init(net())
        for i in range(20):
            params, state, *_ = jitted(stats)(params, state, batch(i))
        ends.append(named(params))
    for end in ends[1:]:
        for name in NAMES:
            np.testing.assert_array_equal(end[name], ends[0][name])


def test_a_step_is_traced_once(tmp_path):
    traced = []

    @jax.jit
    def step(params):
        traced.append(1)
        params = jax.tree.map(lambda w: w + 1, params)
        return params, nk.stats(params=params)

    params = net()
    with start(tmp_path) as recorder:
        for _ in range(4):
            params, stats = step(params)
            recorder(stats)
    assert len(traced) == 1


@functools.partial(jax.jit, donate_argnums=0)
def slow_step(params, big):
    work = jax.lax.fori_loop(0, 20, lambda _, b: jnp.tanh(b @ b), big)
    params = jax.tree.map(lambda w: w * 1.1 + work[0, 0], params)
    return params, nk.stats(params=params), work.sum()


def test_no_call_waits_for_the_device(tmp_path):
    big, params = jnp.ones((700, 700)) * 1e-4, net()
    jax.block_until_ready(slow_step(net(), big))
    with start(tmp_path) as recorder:
        recorder(params=params)  # compiles what is to be compiled
        values = []
        for _ in range(4):
            params, stats, value = slow_step(params, big)
            recorder(stats)
            recorder.log(loss=value)
            values.append(value)
        assert not values[-1].is_ready()
        params, stats, value = slow_step(params, big)
        recorder(params=params)
        assert not value.is_ready()
    assert normkit.load(recorder.path).steps.tolist() == list(range(7))


@jax.jit
def jitted_stats(params):
    return nk.stats(params=params)


def test_resumed_run_goes_on(tmp_path):
    with start(tmp_path) as recorder:
        _, after = train(recorder, 5)
    last = {layer: {name: jnp.asarray(after[-1][f"{layer}.{name}"], jnp.float32) for name in "wb"} for layer in net()}
    with nk.record(recorder.path, params=last, every=1, quiet=True, resume=True) as again:
        assert again.steps == 5
        again(jitted_stats(net()))
    assert normkit.load(recorder.path).steps.tolist() == list(range(7))


def test_log_without_waiting_and_what_it_refuses(tmp_path):
    with start(tmp_path) as recorder:
        recorder(jitted_stats(net()))
        recorder.log(loss=jnp.float32(0.25), accuracy=0.5, half=jnp.bfloat16(2))
        with pytest.warns(RuntimeWarning, match=r"log\(bad=\.\.\.\): expected one number, got shape \(2,\)"):
            recorder.log(bad=jnp.ones(2))
    run = normkit.load(recorder.path)
    assert [run.scalar(name)[1] for name in ("loss", "accuracy", "half")] == [0.25, 0.5, 2.0]


def test_bfloat16_shows_what_really_changed(tmp_path):
    old = {"w": jnp.ones((8, 8), jnp.bfloat16)}
    updates = {"w": jnp.full((8, 8), 1e-4, jnp.bfloat16)}
    new = optax.apply_updates(old, updates)
    asked, real = jax.jit(lambda n, o, u: (nk.stats(n, updates=u), nk.stats(n, before=o)))(new, old, updates)
    with start(tmp_path, params=old) as recorder:
        recorder(asked)
        recorder(real)
    found = normkit.load(recorder.path).series("w", "linf", "update")[1:]
    assert found == pytest.approx([1e-4, 0.0], rel=1e-2)


def test_nan_is_stored(tmp_path):
    with start(tmp_path) as recorder:
        recorder(jitted_stats({**net(), "dense_1": {"w": jnp.full((8, 1), jnp.nan), "b": jnp.zeros(1)}}))
    assert normkit.load(recorder.path).series("dense_1.w", "nonfinite").tolist() == [0, 8]


def test_deleted_stats_stop_the_recording_and_not_the_training(tmp_path):
    recorder = start(tmp_path)
    stats = jitted_stats(net())
    stats.weight.delete()
    with pytest.warns(RuntimeWarning, match="normkit stopped recording at step 1"):
        recorder(stats)
    recorder(jitted_stats(net()))
    assert recorder.steps == 2


def broken(*_):
    raise TypeError("out of order")


@pytest.mark.parametrize("place", ["Plans.sums", "Kept.__init__", "walk"])
def test_nothing_unexpected_reaches_the_training(place, tmp_path, monkeypatch):
    recorder = start(tmp_path, params=None)
    if place == "walk":
        monkeypatch.setattr("normkit.jax.recorder.walk", broken)
    else:
        monkeypatch.setattr(f"normkit.jax.measure.{place}", broken)
    with pytest.warns(RuntimeWarning, match=r"normkit stopped recording at step \d .*out of order"):
        recorder(params=net())
    recorder(params=net())
    assert recorder.closed
    assert recorder.steps == 2
    assert "out of order" in recorder.broken


def test_arrays_of_numpy_may_be_changed_in_place(tmp_path):
    w = np.ones(100_000, np.float32)
    with start(tmp_path, params={"w": w}, every=2) as recorder:
        for _ in range(3):
            recorder(params={"w": w})
            w *= 2
    assert normkit.load(recorder.path).series("w", "linf").tolist() == [1, 2, 4]


def test_stats_taken_without_jit_keep_nothing(tmp_path):
    with start(tmp_path) as recorder:
        for _ in range(3):
            recorder(nk.stats(net()))
        assert len(recorder._columns_of) == 1


def test_stats_without_jit_take_nan_under_debug_nans(tmp_path):
    tree = {"w": jnp.full((2, 2), jnp.nan)}
    with jax.debug_nans(True):
        stats = nk.stats(tree, tree, tree, per={"w": 1})
    assert np.asarray(stats.weight)[5].tolist() == [4, 2, 2]


def test_what_leaves_quantities_out(tmp_path):
    with start(tmp_path, what="weight") as recorder:
        train(recorder, 2)
    assert np.isnan(normkit.load(recorder.path).series("dense_0.w", "l2", "grad")).all()
