"""`nk.constrain` around optax: limits that hold, and leave alone what is within them."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

import pulled

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import nnx

import normkit.jax as nk

SHAPE, OUT = (6, 5), (1,)  # the kept axis of `x @ kernel`


def numbers(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


KERNEL = numbers() * np.array([0.01, 0.3, 1.0, 3.0, 100.0])
LIMITS = {
    "max_norm": (1.25, lambda w: pulled.max_norm(w, 1.25, OUT)),
    "unit_norm": (True, lambda w: pulled.unit_norm(w, OUT)),
    "min_max_norm": ((0.75, 2.0), lambda w: pulled.min_max_norm(w, (0.75, 2.0), OUT)),
    "hold": (3.0, lambda w: pulled.hold(w, 3.0, OUT)),
    "hold initial": ("initial", lambda w: pulled.hold(w, pulled.lengths(KERNEL, OUT), OUT)),
    "spectral_cap": (0.5, lambda w: pulled.spectral_cap(w, 0.5, OUT)),
}
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # compiled in less time
quickly = partial(jax.jit, compiler_options=QUICKLY)
EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-7}


def constrained(limit, optimizer=None, **more):
    optimizer = optax.sgd(0.1) if optimizer is None else optimizer
    return nk.constrain(optimizer, **{limit.split()[0]: LIMITS[limit][0]}, **more)


def tree(kernel=KERNEL, dtype="float32"):
    return {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.full(5, 9.0, dtype)}


TRIED = {"float32": list(LIMITS), "bfloat16": ["max_norm", "hold initial"]}
CASES = [
    pytest.param(limit, dtype, marks=[pytest.mark.slow] if dtype == "bfloat16" else [])
    for dtype, limits in TRIED.items()
    for limit in limits
]


@cache
def found(dtype):
    """Of each limit: the weights after a step, after `project`, after a second one, and after steps of nothing.

    What one such step leaves as it is, bit by bit, a thousand do: each is the same function of the same bits.
    """
    optimizers = {limit: constrained(limit) for limit in TRIED[dtype]}
    states = {limit: optimizer.init(tree(dtype=dtype)) for limit, optimizer in optimizers.items()}

    @quickly
    def project(trees):
        return {limit: optimizers[limit].project(params, states[limit]) for limit, params in trees.items()}

    @quickly
    def step(trees, grads):
        return {
            limit: optax.apply_updates(params, optimizers[limit].update(grads, states[limit], params)[0])
            for limit, params in trees.items()
        }

    params, grads = tree(KERNEL * 1.1, dtype), tree(numbers(seed=1), dtype)
    start = dict.fromkeys(optimizers, params)
    once = again = project(start)
    for _ in range(3):
        again = step(again, jax.tree.map(np.zeros_like, grads))
    return params, grads, step(start, grads), once, project(once), again


@pytest.mark.parametrize(("limit", "dtype"), CASES)
def test_limits(limit, dtype):
    params, grads, stepped, once, *others = found(dtype)
    stepped, once, *others = (each[limit] for each in (stepped, once, *others))
    for again in others:
        assert np.asarray(again["kernel"]).tobytes() == np.asarray(once["kernel"]).tobytes()
    expected = LIMITS[limit][1]
    eps = EPS[dtype]
    scale = np.abs(pulled.wide(once["kernel"])).max(axis=0)
    close = 3 * eps * scale + (4 * eps * scale.max() if limit == "spectral_cap" else 0)
    assert (np.abs(pulled.wide(once["kernel"]) - expected(params["kernel"])) <= close).all()
    before = pulled.wide(params["kernel"])
    target = expected(pulled.wide(params["kernel"] - (0.1 * grads["kernel"]).astype(dtype)))
    close = close + eps * np.abs(before)  # adding an update rounds once more
    assert (np.abs(pulled.wide(stepped["kernel"]) - target) <= close).all()
    np.testing.assert_array_equal(once["bias"], 9)
    assert once["kernel"].dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("dtype", EPS)
def test_a_thousand_applications_change_no_bit(dtype):
    """Of `project`, and of steps without a gradient, compiled as users compile them."""
    optimizers = {limit: constrained(limit) for limit in LIMITS}
    states = {limit: optimizer.init(tree(dtype=dtype)) for limit, optimizer in optimizers.items()}

    @jax.jit
    def project(trees):
        return {limit: optimizers[limit].project(params, states[limit]) for limit, params in trees.items()}

    @jax.jit
    def step(trees):
        def one(limit, params):
            zero = jax.tree.map(jnp.zeros_like, params)
            return optax.apply_updates(params, optimizers[limit].update(zero, states[limit], params)[0])

        return {limit: one(limit, params) for limit, params in trees.items()}

    satisfied = project(dict.fromkeys(LIMITS, tree(KERNEL * 1.1, dtype)))
    projected = stepped = satisfied
    for _ in range(1000):
        projected, stepped = project(projected), step(stepped)
    for limit in LIMITS:
        bits = np.asarray(satisfied[limit]["kernel"]).tobytes()
        assert np.asarray(projected[limit]["kernel"]).tobytes() == bits, limit
        assert np.asarray(stepped[limit]["kernel"]).tobytes() == bits, limit


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_nothing_ends_over_its_limit(dtype):
    _, _, stepped, once, *_ = found(dtype)
    assert (pulled.lengths(once["max_norm"]["kernel"], OUT) <= 1.25).all()
    assert (pulled.lengths(stepped["max_norm"]["kernel"], OUT)[:, :4] <= 1.25 * (1 + 2 * EPS[dtype])).all()
    if "spectral_cap" in once:
        assert pulled.sigmas(once["spectral_cap"]["kernel"], OUT).max() <= 0.5


def test_satisfied_weights_train_as_without():
    params, grads = tree(0.01 * numbers()), tree(0.01 * numbers(seed=1))
    plain = optax.adam(0.01)
    limited = nk.constrain(plain, max_norm=5.0)
    one, other = (jax.jit(o.update)(grads, o.init(params), params)[0] for o in (plain, limited))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_several_limits_and_their_projection():
    optimizer = nk.constrain(nk.constrain(optax.sgd(0.1), max_norm=1.0), hold=2.0, select="a.*")
    params = {"a": tree(), "b": tree()}
    new = jax.jit(optimizer.project)(params)
    np.testing.assert_allclose(pulled.lengths(new["a"]["kernel"], OUT), 2.0, rtol=1e-6)
    assert pulled.lengths(new["b"]["kernel"], OUT).max() <= 1.0
    table = {row.name: row for row in optimizer.explain(params).rows}
    assert table["a.kernel"].told == "max_norm 1, 5 groups; then hold 2, 5 groups"
    assert table["b.kernel"].told == "max_norm 1, 5 groups"
    assert table["b.kernel"].chosen
    assert not table["b.bias"].chosen


def test_limits_further_in_are_projected_through_what_stands_between():
    inner = nk.constrain(optax.sgd(0.1), max_norm=1.0)
    between = nk.proximal(nk.decay(inner, 0.1, learning_rate=0.1), l1=0.1, learning_rate=0.1)
    params = {"a": {"kernel": np.full((2, 2), 3.0, np.float32)}, "b": {"kernel": np.full((2, 2), 3.0, np.float32)}}
    outer = nk.constrain(between, hold=2.0, select="b.*")
    for new, expected in zip(
        quickly(lambda p: (outer.project(p), between.project(p)))(params), ((1, 2), (1, 1)), strict=True
    ):
        found = [pulled.lengths(new[name]["kernel"], OUT) for name in "ab"]
        np.testing.assert_allclose(found, np.broadcast_to(np.reshape(expected, (2, 1, 1)), (2, 1, 2)), rtol=1e-6)
    alone = nk.decay(optax.sgd(0.1), 0.1, learning_rate=0.1)
    assert alone.project(params) is params


def test_numbers_of_jax_as_limits():
    optimizer = nk.constrain(optax.sgd(0.1), min_max_norm=(jnp.float32(0.5), jnp.float32(1.0)))
    assert repr(optimizer).startswith("<min_max_norm 0.5 to 1 around")
    assert repr(nk.constrain(optax.sgd(0.1), max_norm=jnp.float32(0.5))).startswith("<max_norm 0.5 around")


def test_weights_in_two_parts_are_limited_by_g():
    parts = nk.weight_norm(tree())
    new = jax.jit(constrained("max_norm").project)(parts)
    np.testing.assert_array_equal(new["kernel"].v, parts["kernel"].v)
    np.testing.assert_allclose(nk.materialize(new)["kernel"], LIMITS["max_norm"][1](KERNEL), rtol=1e-5)
    assert np.abs(new["kernel"].g).max() <= 1.25
    new = jax.jit(constrained("hold", per="tensor").project)(parts)  # whose group is all of those of g
    np.testing.assert_allclose(nk.materialize(new)["kernel"], pulled.hold(KERNEL, 3.0, ()), rtol=1e-5)


def test_modules():
    model = nnx.Linear(6, 5, kernel_init=lambda *_: jnp.asarray(KERNEL, jnp.float32), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, constrained("hold initial", optax.sgd(0.1)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(jnp.ones((2, 6))) ** 2))(model))

    for _ in range(2):
        step(model, optimizer)
    np.testing.assert_allclose(pulled.lengths(model.kernel[...], OUT), pulled.lengths(KERNEL, OUT), rtol=1e-6)
    linear = eqx.filter_eval_shape(lambda key: eqx.nn.Linear(4, 3, key=key), np.zeros(2, np.uint32))
    linear = jax.tree.map(lambda x: numbers(x.shape).astype(x.dtype), linear)
    new = jax.jit(nk.constrain(optax.sgd(0.1), unit_norm=True).project)(linear)
    assert isinstance(new, eqx.nn.Linear)
    np.testing.assert_allclose(pulled.lengths(new.weight, (0,)), 1.0, rtol=1e-6)


def test_an_ensemble_under_vmap():
    stacked = {"kernel": jnp.stack([jnp.asarray(KERNEL), 3 * jnp.asarray(KERNEL)])}
    optimizer = nk.constrain(nk.decay(optax.sgd(0.1), 0.5, learning_rate=0.1), max_norm=1.0)

    def step(params):
        updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
        return optax.apply_updates(params, updates)["kernel"]

    new = jax.jit(jax.vmap(step))(stacked)
    for i, factor in enumerate((0.95, 3 * 0.95)):
        expected = pulled.max_norm(factor * KERNEL, 1.0, OUT)
        np.testing.assert_allclose(new[i], expected, rtol=1e-5, atol=3e-5)


@pytest.mark.slow
def test_a_stack_of_layers_is_capped_layer_by_layer():
    shapes = eqx.filter_eval_shape(
        eqx.filter_vmap(lambda key: eqx.nn.Linear(6, 5, key=key)), np.zeros((2, 2), np.uint32)
    )
    model = jax.tree.map(lambda x: numbers(x.shape).astype(x.dtype), shapes)
    new = jax.jit(nk.constrain(optax.sgd(0.1), spectral_cap=0.5).project)(model)
    for before, after in zip(model.weight, new.weight, strict=True):
        assert pulled.sigmas(before).max() > 0.5
        assert 0.4999 < pulled.sigmas(after).max() <= 0.5
