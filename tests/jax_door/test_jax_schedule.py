"""Which steps and tensors a recorder of JAX training takes, and where its file begins and ends."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import normkit
import reference

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp

import normkit.jax as nk


def net():
    return {"dense_0": {"w": jnp.arange(12.0).reshape(3, 4), "b": jnp.zeros(4)}, "dense_1": {"w": -jnp.ones((4, 2))}}


def start(tmp_path, **words):
    words = {"params": net(), "every": 1, "quiet": True, **words}
    return nk.record(tmp_path / "a", **words)


def l2(x):
    return reference.norm_of(x, "l2")


@jax.jit
def jitted_stats(params):
    return nk.stats(params=params)


def test_every_and_the_last_step(tmp_path):
    recorder = start(tmp_path, every=4)
    asked = []
    for i in range(1, 11):
        asked.append(recorder.wants())
        recorder(i, params=net())
    kept = net()
    recorder(11, params=kept)
    recorder.close()
    assert [i for i, wanted in enumerate(asked, 1) if wanted] == [4, 8]
    assert normkit.load(recorder.path).steps.tolist() == [0, 4, 8, 11]


def test_last_step_of_trees_that_are_gone_is_left_out_and_said(tmp_path, capsys):
    with start(tmp_path, every=4, quiet=False) as recorder:
        recorder(5, params=net())
    assert "normkit: step 5 is not recorded: what it was called with has been donated" in capsys.readouterr().err
    assert normkit.load(recorder.path).steps.tolist() == [0]


def test_a_function_of_the_step_is_asked_once_each(tmp_path):
    asked = []
    with start(tmp_path, every=lambda step: asked.append(step) or step == 2) as recorder:
        for _ in range(3):
            recorder(params=net())
    assert asked == [1, 2, 3]
    assert normkit.load(recorder.path).steps.tolist() == [0, 2]


def test_epochs_end_where_the_loop_says(tmp_path):
    with start(tmp_path, every=nk.Every(epochs=2)) as recorder:
        for _ in range(4):
            for _ in range(3):
                recorder(jitted_stats(net()))
            recorder.epoch()
    run = normkit.load(recorder.path)
    assert run.steps.tolist() == [0, 6, 12]


def test_two_compiled_steps_one_with_stats(tmp_path):
    with start(tmp_path, every=3) as recorder:
        for _ in range(6):
            recorder(jitted_stats(net()) if recorder.wants() else None)
    assert recorder.steps == 6
    assert normkit.load(recorder.path).steps.tolist() == [0, 3, 6]


def test_steps_stacked_by_scan(tmp_path):
    @jax.jit
    def many(params, xs):
        def one(params, x):
            params = jax.tree.map(lambda w: w + x, params)
            return params, nk.stats(params=params)

        return jax.lax.scan(one, params, xs)

    with start(tmp_path) as recorder:
        params, stats = many(net(), jnp.ones(5))
        recorder(5, stats)
        params, stats = many(params, jnp.ones(5))
        recorder(10, stats)
    found = normkit.load(recorder.path)
    assert found.steps.tolist() == list(range(11))
    assert found.series("dense_0.b", "linf") == pytest.approx(np.arange(11))


def test_without_first_weights_the_first_call_opens_the_file(tmp_path):
    recorder = start(tmp_path, params=None)
    assert not recorder.closed
    recorder(1, jitted_stats(net()))
    recorder.close()
    assert recorder.closed
    assert normkit.load(recorder.path).steps.tolist() == [1]


def test_closed_without_a_call_says_so(tmp_path, capsys):
    start(tmp_path, params=None, quiet=False).close()
    assert "nothing was recorded" in capsys.readouterr().err
    start(tmp_path, params=None)
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_select_takes_some_of_the_stats(tmp_path):
    with start(tmp_path, params=None, select="kernel") as recorder:
        recorder(jitted_stats(net()))
        recorder(jitted_stats(net()))
    run = normkit.load(recorder.path)
    assert run.tensors == ("dense_0.w", "dense_1.w")
    assert run.series("dense_0.w") == pytest.approx([l2(np.asarray(net()["dense_0"]["w"]))] * 2, rel=1e-12)


def test_layers_of_a_scanned_stack(tmp_path):
    stack = {"blocks": {"w": jnp.arange(24.0).reshape(2, 3, 4), "b": jnp.ones((2, 4))}, "head": {"w": jnp.ones((4, 2))}}
    grads = jax.tree.map(lambda w: w * 2, stack)
    by_layer = {"blocks.*": 0}
    inside = jax.jit(lambda w, g: nk.stats(params=w, grads=g, per=by_layer))
    with start(tmp_path, params=stack, per=by_layer) as recorder:
        recorder(1, inside(stack, grads))
        recorder(2, params=stack, grads=grads)
    run = normkit.load(recorder.path)
    expected = [l2(w) for w in np.asarray(stack["blocks"]["w"])]
    assert run.rows("blocks.w", per=0) == pytest.approx(np.array([expected] * 3), rel=1e-12)
    assert run.rows("blocks.w", "l2", "grad", per=0)[1:] == pytest.approx(np.array([expected] * 2) * 2, rel=1e-12)
    assert run.rows("blocks.b", "l1", per=0)[0].tolist() == [4, 4]
