"""What users do with `nk.decay`: what stands around it and inside, modules, mixed precision, states that are saved."""

from __future__ import annotations

import numpy as np
import pytest

import pulled

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import nnx, serialization
from flax.training.train_state import TrainState

import normkit.jax as nk
from jax_quickly import quickly  # noqa: F401  # for the whole file

PARAMS = {"fc": {"kernel": jnp.asarray(pulled.START, jnp.float32), "bias": jnp.ones(3)}}
ZERO = jax.tree.map(jnp.zeros_like, PARAMS)


def one(optimizer, params=PARAMS, updates=ZERO, state=None):
    """A step; without gradients unless told, so that what changes is the decay."""

    @jax.jit  # one function to compile, in place of each of its operations
    def step(params, updates, state):
        updates, state = optimizer.update(updates, optimizer.init(params) if state is None else state, params)
        return optax.apply_updates(params, updates), state

    return step(params, updates, state)


def test_kernels_alone_by_default():
    new, _ = one(nk.decay(optax.adam(0.1), 0.5, learning_rate=0.1))
    np.testing.assert_allclose(new["fc"]["kernel"], 0.95 * pulled.START, rtol=1e-6)
    np.testing.assert_array_equal(new["fc"]["bias"], 1)


@pytest.mark.parametrize(
    "made",
    [
        lambda tx: optax.chain(optax.clip_by_global_norm(1.0), nk.decay(tx, 0.5, learning_rate=0.1)),
        lambda tx: nk.decay(optax.chain(optax.clip_by_global_norm(1.0), tx), 0.5, learning_rate=0.1),
        lambda tx: optax.masked(nk.decay(tx, 0.5, learning_rate=0.1), {"fc": {"kernel": True, "bias": False}}),
        lambda tx: optax.inject_hyperparams(nk.decay)(tx, 0.5, learning_rate=0.1),
        lambda tx: nk.decay(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), 0.5, learning_rate=0.1),
        lambda tx: optax.inject_hyperparams(lambda lr: nk.decay(optax.sgd(lr), 0.5, learning_rate=lr))(lr=0.1),
        lambda tx: optax.apply_if_finite(nk.decay(tx, 0.5, learning_rate=0.1), 3),
        lambda tx: optax.MultiSteps(nk.decay(tx, 0.5, learning_rate=0.1), 1),
        lambda tx: nk.decay(nk.decay(tx, 0.2, learning_rate=0.1), 0.3, learning_rate=0.1, select="fc.*"),
        lambda tx: nk.decay(optax.adamw(0.1, weight_decay=0.0), 0.5, learning_rate=jnp.float32(0.1)),
    ],
)
def test_any_arrangement_takes_the_same(made):
    new, _ = one(made(optax.sgd(0.1)))
    np.testing.assert_allclose(new["fc"]["kernel"], 0.95 * pulled.START, rtol=1e-6)
    np.testing.assert_array_equal(new["fc"]["bias"], 1)


def test_a_step_of_multisteps_is_one_of_the_optimizer():
    optimizer = nk.decay(optax.MultiSteps(optax.sgd(0.1), 2), 0.5, learning_rate=0.1)
    params, state = one(optimizer)
    np.testing.assert_array_equal(params["fc"]["kernel"], PARAMS["fc"]["kernel"])
    assert state.count == 0
    params, state = one(optimizer, params, state=state)
    np.testing.assert_allclose(params["fc"]["kernel"], 0.95 * pulled.START, rtol=1e-6)
    assert state.count == 1
    limited, _ = one(nk.constrain(optax.MultiSteps(optax.sgd(0.1), 2), max_norm=0.1))
    np.testing.assert_array_equal(limited["fc"]["kernel"], PARAMS["fc"]["kernel"])


def test_optimizer_of_nnx_and_train_state():
    def optimizer():
        return nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1, kind="toward", length="initial", per="out")

    model = nnx.Linear(4, 3, kernel_init=lambda *_: jnp.asarray(pulled.START, jnp.float32), rngs=nnx.Rngs(0))
    before = np.asarray(model.kernel[...])
    nnx_optimizer = nnx.Optimizer(model, optimizer(), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        model.kernel[...] *= 2.0
        optimizer.update(model, nnx.grad(lambda model: 0.0 * jnp.sum(model.kernel[...]))(model))

    step(model, nnx_optimizer)
    np.testing.assert_allclose(model.kernel[...], before * 2 * (1 - 0.05 * 0.5), rtol=1e-6)
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1))
    new = jax.jit(lambda state: state.apply_gradients(grads=ZERO))(state)
    np.testing.assert_allclose(new.params["fc"]["kernel"], 0.95 * pulled.START, rtol=1e-6)


@pytest.mark.parametrize("given", ["filtered", "whole"])
def test_equinox(given):
    model = eqx.filter_eval_shape(lambda key: eqx.nn.MLP(4, 3, 5, 1, key=key), np.zeros(2, np.uint32))
    model = jax.tree.map(lambda x: np.ones(x.shape, x.dtype) if hasattr(x, "shape") else x, model)
    optimizer = nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1, kind="toward", reference="initial")
    params = eqx.filter(model, eqx.is_inexact_array)
    state = optimizer.init(params)
    moved = jax.tree.map(lambda x: x + np.float32(1), params)
    shown = moved if given == "filtered" else eqx.combine(moved, model)
    updates, _ = eqx.filter_jit(optimizer.update)(jax.tree.map(np.zeros_like, params), state, shown)
    np.testing.assert_allclose(updates.layers[0].weight, np.full((5, 4), -0.05), rtol=1e-5)
    assert not updates.layers[0].bias.any()


def test_weights_without_a_gradient_are_left_alone():
    optimizer = nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1)
    params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
    grads = {"a": {"kernel": jnp.zeros((2, 2))}, "b": {"kernel": None}}
    updates, _ = optimizer.update(grads, optimizer.init({**params, "b": {"kernel": None}}), params)
    assert updates["b"]["kernel"] is None
    np.testing.assert_allclose(updates["a"]["kernel"], -0.05, rtol=1e-6)


def test_mixed_precision_keeps_dtypes():
    params = {"kernel": jnp.asarray(pulled.START, jnp.bfloat16)}
    optimizer = nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1, schedule=pulled.fading)
    for dtype in ("bfloat16", "float32"):
        updates, _ = jax.jit(optimizer.update)({"kernel": jnp.zeros((4, 3), dtype)}, optimizer.init(params), params)
        assert updates["kernel"].dtype == dtype
        np.testing.assert_allclose(updates["kernel"].astype("float32"), -0.05 * pulled.START, rtol=4e-3)


def test_weights_in_two_parts_decay_by_g():
    parts = nk.weight_norm(PARAMS)
    zero = jax.tree.map(jnp.zeros_like, parts)
    for kind in ("decoupled", "l2"):
        new, _ = one(nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1, kind=kind), parts, zero)
        np.testing.assert_allclose(new["fc"]["kernel"].g, 0.95 * parts["fc"]["kernel"].g, rtol=1e-6)
        np.testing.assert_array_equal(new["fc"]["kernel"].v, parts["fc"]["kernel"].v)
    optimizer = nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1, kind="toward", length=1.0)
    new, _ = one(optimizer, parts, zero)
    whole = pulled.shrunk(pulled.START, "toward", 0.5, lr=0.1, length=1.0)
    np.testing.assert_allclose(nk.materialize(new)["fc"]["kernel"], whole, rtol=1e-5)
    new, _ = one(nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1, select="*.v"), parts, zero)
    np.testing.assert_allclose(new["fc"]["kernel"].v, 0.95 * pulled.START, rtol=1e-6)


def is_masked(node):
    return isinstance(node, optax.MaskedNode)


def test_state_survives_saving_donation_and_maps_of_params():
    optimizer = nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1, kind="toward", reference="initial")
    params = jax.tree.map(jnp.copy, PARAMS)
    state = optimizer.init(params)
    back = serialization.from_bytes(state, serialization.to_bytes(state))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    np.testing.assert_array_equal(back.reference["fc"]["kernel"], pulled.START)
    step = jax.jit(lambda params, state: one(optimizer, params, ZERO, state), donate_argnums=(0, 1))
    new, state = step(*step(params, state))
    np.testing.assert_allclose(new["fc"]["kernel"], pulled.START, rtol=1e-6)
    state = optimizer.init(PARAMS)
    doubled = optax.tree.map_params(optimizer, lambda x: x if is_masked(x) else 2 * x, state, is_leaf=is_masked)
    np.testing.assert_array_equal(doubled.reference["fc"]["kernel"], 2 * pulled.START)


def test_explain_says_what_happens_and_how_much():
    parts = {**nk.weight_norm(PARAMS), "out": {"kernel": jnp.ones((2, 2))}, "count": jnp.arange(3)}
    optimizer = nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1)
    lines = [line.split(maxsplit=2)[::2] for line in str(optimizer.explain(parts)).splitlines()]
    table = dict(line for line in lines if len(line) == 2)
    assert table["out.kernel"].endswith("role kernel by default: decoupled 0.5, step 0 takes 0.05 of the weight")
    assert table["fc.kernel"].endswith("step 0 takes 0.05 of the weight through fc.kernel.g")
    assert "- part v of fc.kernel" in table["fc.kernel.v"]
    assert "int32 is not trained" in table["count"]
    assert repr(nk.constrain(optimizer, max_norm=3)) == (
        "<max_norm 3 around <decoupled 0.5 around an optax transformation>>"
    )
