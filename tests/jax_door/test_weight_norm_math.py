"""Weights in two parts while they are trained: the trajectory, derivatives, what jax does to functions of them."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import normal

jax = pytest.importorskip("jax", reason="jax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp

import normkit.jax as nk

RNG = np.random.default_rng(0)
PER = {"out": (1,), "tensor": ()}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# --- a hundred steps --------------------------------------------------------------------------------------------------


def start(dtype):
    x, y, layers = normal.start()
    params = nk.weight_norm([{"kernel": w.T.astype(dtype), "bias": b.astype(dtype)} for w, b in layers])
    return x.astype(dtype), y.astype(dtype), jax.tree.map(jnp.asarray, params)


def loss_of(params, x, y):
    first, second = nk.materialize(params)
    hidden = jnp.tanh(x @ first["kernel"] + first["bias"])
    return ((hidden @ second["kernel"] + second["bias"] - y) ** 2).mean()


def assert_trained(layers, steps, tolerance):
    """`layers`: kernel node [in][out] and bias of each."""
    for (node, bias), (v, g, b) in zip(layers, normal.trained(steps), strict=True):
        for found, expected in ((node.v.T, v), (node.g.T, g), (bias, b)):
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_sgd(dtype, tolerance, float64):
    x, y, params = start(dtype)
    optimizer = optax.sgd(normal.RATE)
    traces = []

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state):
        traces.append(1)
        updates, opt_state = optimizer.update(jax.grad(loss_of)(params, x, y), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(params)
    for _ in range(normal.STEPS):
        params, opt_state = step(params, opt_state)
    assert_trained([(layer["kernel"], layer["bias"]) for layer in params], normal.STEPS, tolerance)
    assert len(traces) == 1
    for layer, (v, g, _) in zip(nk.fold(params), normal.trained(), strict=True):
        np.testing.assert_allclose(layer["kernel"].T, normal.weight(v, g, (0,)), rtol=tolerance, atol=tolerance)


def test_equinox_sgd(float64):
    x, y, layers = normal.start()
    model = eqx.filter_eval_shape(eqx.nn.MLP, 4, 3, 6, 1, activation=jnp.tanh, key=jax.random.key(0))

    def places(model):
        return [array for layer in model.layers for array in (layer.weight, layer.bias)]

    def loss(model):
        return ((jax.vmap(nk.materialize(model))(x) - y) ** 2).mean()

    model = nk.weight_norm(eqx.tree_at(places, model, [each for layer in layers for each in layer]))
    optimizer = optax.sgd(normal.RATE)

    @eqx.filter_jit
    def step(model, opt_state):
        updates, opt_state = optimizer.update(eqx.filter_grad(loss)(model), opt_state)
        return eqx.apply_updates(model, updates), opt_state

    opt_state = optimizer.init(eqx.filter(model, eqx.is_array))
    for _ in range(20):
        model, opt_state = step(model, opt_state)
    for layer, (v, g, b) in zip(model.layers, normal.trained(20), strict=True):
        for found, expected in ((layer.weight.v, v), (layer.weight.g, g), (layer.bias, b)):
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_optimizers_that_tell_the_parts_apart(float64):
    params = nk.weight_norm({"kernel": RNG.standard_normal((3, 2)), "bias": np.ones(2)})
    is_g = jax.tree_util.tree_map_with_path(lambda path, _: str(path[-1]) == ".g", params)
    labels = jax.tree.map(lambda is_g: "g" if is_g else "rest", is_g)
    decayed = optax.add_decayed_weights(0.1, mask=is_g)
    split = optax.multi_transform({"g": optax.scale(-1.0), "rest": optax.set_to_zero()}, labels)

    @jax.jit
    def updates_of(params):
        zeros, ones = (jax.tree.map(like, params) for like in (jnp.zeros_like, jnp.ones_like))
        pairs = (decayed, zeros), (split, ones)
        return [each.update(grads, each.init(params), params)[0]["kernel"] for each, grads in pairs]

    by_mask, by_label = updates_of(params)
    np.testing.assert_allclose(by_mask.g, 0.1 * params["kernel"].g)
    assert (np.asarray(by_label.g) == -1).all()
    assert not by_mask.v.any()
    assert not by_label.v.any()


# --- derivatives ------------------------------------------------------------------------------------------------------


def curve(per, p=2, shape=(2, 3)):
    """A function of v and g, flat, that bends in w; and a place for it."""
    kept = PER[per]
    size = int(np.prod(shape))
    g_shape = tuple(n if axis in kept else 1 for axis, n in enumerate(shape))
    slope = RNG.standard_normal(shape)

    def value(flat):
        node = nk.Normalized(flat[:size].reshape(shape), flat[size:].reshape(g_shape), p)
        w = nk.materialize(node)
        return (slope * w + w**2 * slope[::-1]).sum()

    return value, RNG.standard_normal(size + int(np.prod(g_shape)))


def differences(function, at, width=1e-6):
    return jax.vmap(lambda move: (function(at + move) - function(at - move)) / (2 * width))(np.eye(at.size) * width)


@pytest.mark.parametrize(("per", "p"), [("out", 2), ("tensor", 3)])
def test_first_and_second_derivative(per, p, float64):
    value, at = curve(per, p)
    direction = RNG.standard_normal(at.size)
    first = jax.grad(value)

    @jax.jit
    def everything(at):
        hessian = jax.hessian(value)(at)  # forward over reverse
        twice = jax.grad(lambda flat: first(flat) @ direction)(at)  # reverse over reverse
        return first(at), differences(value, at), hessian, differences(first, at), twice

    grad, by_value, hessian, by_grad, twice = everything(at)
    np.testing.assert_allclose(grad, by_value, atol=1e-7)
    np.testing.assert_allclose(hessian, by_grad, atol=1e-6)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-12)
    np.testing.assert_allclose(twice, hessian @ direction, rtol=1e-10, atol=1e-10)


def test_zero_groups(float64):
    v = jnp.asarray([[0.0, 3.0], [0.0, 4.0]])
    g = jnp.asarray([[7.0, 10.0]])
    slope = RNG.standard_normal((2, 2))

    def value(v, g):
        return (nk.materialize(nk.Normalized(v, g)) * slope).sum()

    first, second = jax.jit(lambda *at: (jax.grad(value, (0, 1))(*at), jax.hessian(value, (0, 1))(*at)))(v, g)
    expected = normal.gradients(slope, v, g, (1,))
    for found, known in zip(first, expected, strict=True):
        np.testing.assert_allclose(found, known, atol=1e-12)
    (vv, vg), (gv, gg) = second
    assert all(np.isfinite(block).all() for block in (vv, vg, gv, gg))
    assert not vv[:, 0].any()
    assert not gg.any()
    np.testing.assert_allclose(vg[:, 0, 0, 0], slope[:, 0])  # d2w/dg dv = 1
    assert not nk.weight_norm({"kernel": jnp.zeros((2, 2))})["kernel"].g.any()


def test_gradients_are_orthogonal_and_steps_lengthen(float64):
    x, y, params = start("float64")
    grads = jax.jit(jax.grad(loss_of))(params, x, y)
    for layer, grad in zip(params, grads, strict=True):
        v, away = (np.asarray(each["kernel"].v) for each in (layer, grad))
        lengths = nk.norm_except_dim(v, 1)
        np.testing.assert_allclose((v * away).sum(0), 0, atol=1e-12)
        ratio = nk.norm_except_dim(away, 1) / lengths
        np.testing.assert_allclose(nk.norm_except_dim(v - away, 1), lengths * np.sqrt(1 + ratio**2), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(dtype):
    w = jnp.asarray(RNG.standard_normal((300, 2)) * 30, dtype)
    node = nk.weight_norm({"kernel": w})["kernel"]
    assert node.g.dtype == node.v.dtype == nk.materialize(node).dtype == dtype
    np.testing.assert_allclose(node.g, normal.lengths(w, (1,)), rtol=float(jnp.finfo(dtype).eps))
    np.testing.assert_allclose(
        nk.materialize(node).astype("float32"), w.astype("float32"), rtol=2 * float(jnp.finfo(dtype).eps)
    )


# --- functions of jax's -----------------------------------------------------------------------------------------------


def test_vmap_and_scan_over_layers():
    stack = {"kernel": RNG.standard_normal((3, 4, 4)).astype("float32"), "bias": np.zeros((3, 4), "float32")}
    parts = nk.weight_norm(stack)
    x = RNG.standard_normal((2, 4)).astype("float32")

    def layer(x, params):
        return jnp.tanh(x @ params["kernel"] + params["bias"]), None

    @jax.jit
    def everything(parts):
        inside, _ = jax.lax.scan(lambda x, one: layer(x, nk.materialize(one)), x, parts)
        outside, _ = jax.lax.scan(layer, x, nk.materialize(parts))
        return inside, outside, jax.vmap(lambda one: layer(x, nk.materialize(one))[0])(parts)

    inside, outside, each = everything(parts)
    expected = x
    for w in np.asarray(stack["kernel"]):
        np.testing.assert_allclose(each[0], np.tanh(x @ stack["kernel"][0]), rtol=1e-5, atol=1e-6)
        expected = np.tanh(expected @ w)
    np.testing.assert_allclose(inside, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outside, expected, rtol=1e-5, atol=1e-6)


def test_an_ensemble_is_wrapped_under_vmap():
    members = RNG.standard_normal((3, 4, 2)).astype("float32")
    parts = jax.jit(jax.vmap(lambda w: nk.weight_norm({"kernel": w})))(members)
    assert parts["kernel"].g.shape == (3, 1, 2)
    np.testing.assert_allclose(jax.jit(nk.materialize)(parts)["kernel"], members, rtol=1e-6)
