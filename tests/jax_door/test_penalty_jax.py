"""`nk.penalty` on trees: each term against its formula in float64, derivatives at zero, which weights it takes."""

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
from flax import linen, nnx

import normkit.jax as nk
from jax_quickly import quickly  # noqa: F401  # for the whole file

KEY = np.zeros(2, np.uint32)


def numbers(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


KERNEL, OTHER = numbers((4, 3)), numbers((3, 2))
NEAR = KERNEL + 0.25 * numbers((4, 3), seed=1)
OUT = (1,)  # the kept axis of `x @ kernel`
TERMS = {
    "l1": (pulled.penalty_l1, pulled.gradient_l1),
    "l2": (pulled.penalty_l2, pulled.gradient_l2),
    "group": (partial(pulled.penalty_group, kept=OUT), partial(pulled.gradient_group, kept=OUT)),
    "toward": (partial(pulled.penalty_toward, reference=NEAR), partial(pulled.gradient_toward, reference=NEAR)),
    "orthogonality": (
        partial(pulled.penalty_orthogonality, kept=OUT),
        partial(pulled.gradient_orthogonality, kept=OUT),
    ),
    "spectral": (partial(pulled.penalty_spectral, kept=OUT), partial(pulled.gradient_spectral, kept=OUT)),
}
COEFFICIENTS = {name: 0.1 * (i + 1) for i, name in enumerate(TERMS)}


def tree(kernel=KERNEL):
    """Of a copy: jax keeps what it made of a NumPy array in a jitted function, in float64 where that was asked for."""
    return {"dense": {"kernel": jnp.asarray(np.array(kernel)), "bias": jnp.ones(3)}}


def all_terms(params, call=nk.penalty_terms):
    return call(params, **COEFFICIENTS, reference=tree(NEAR))


@cache
def derivatives():
    """Terms, their sum, the gradient of each and its derivative, in one function: what is slow here is compiling."""

    @jax.jit
    def everything(params):
        gradients, second = jax.jvp(jax.jacrev(all_terms), (params,), (tree(NEAR),))
        return all_terms(params), all_terms(params, nk.penalty), gradients, second

    return everything


def found(kernel=KERNEL):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, derivatives()(tree(kernel)))


@pytest.mark.parametrize("term", TERMS)
def test_terms_and_gradients(term):
    values, total, gradients, _ = found()
    value, gradient = TERMS[term]
    close = 1e-12 if term != "spectral" else 2e-3  # 20 steps of power iteration
    assert values[term] <= COEFFICIENTS[term] * value(KERNEL) * (1 + 1e-12)  # a lower bound
    np.testing.assert_allclose(values[term], COEFFICIENTS[term] * value(KERNEL), rtol=close)
    here = gradients[term]["dense"]
    scale = np.abs(gradient(KERNEL)).max()
    np.testing.assert_allclose(here["kernel"], COEFFICIENTS[term] * gradient(KERNEL), atol=20 * close * scale)
    assert not here["bias"].any()
    np.testing.assert_allclose(total, sum(values.values()), rtol=1e-12)


def test_half_precision_gives_float32():
    kernel = jnp.asarray(KERNEL, jnp.bfloat16)
    value, gradient = jax.value_and_grad(partial(nk.penalty, l2=0.5))({"kernel": kernel})
    assert value.dtype == jnp.float32
    assert gradient["kernel"].dtype == jnp.bfloat16
    np.testing.assert_allclose(value, 0.5 * pulled.penalty_l2(kernel), rtol=1e-6)


@pytest.mark.parametrize("kernel", [np.zeros((4, 3)), np.where(np.arange(3) == 1, 0.0, KERNEL)], ids=["all", "a group"])
def test_derivatives_at_zero_are_finite(kernel):
    _, _, first, second = found(kernel)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((first, second)))
    zero = np.broadcast_to(kernel == 0, KERNEL.shape)
    for term in ("l1", "l2", "group"):  # the subgradient 0; jax has 1 for |w|
        assert not first[term]["dense"]["kernel"][zero].any()


def test_l2_is_the_coupled_weight_decay_bit_by_bit():
    def trained(optimizer, pull):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: jnp.sum((p["kernel"] - 0.3) ** 4) + pull(p))(params)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        params = {"kernel": jnp.asarray(KERNEL)}
        return jax.lax.scan(step, (params, optimizer.init(params)), length=50)[0][0]["kernel"]

    for weight_decay, x64, close in ((2.0**-5, False, 0.0), (0.03, False, 1e-5), (0.03, True, 1e-12)):
        with jax.enable_x64(x64):
            plain = optax.sgd(0.05, momentum=0.9, nesterov=True)
            coupled = optax.chain(optax.add_decayed_weights(weight_decay), plain)
            one = jax.jit(lambda o=coupled: trained(o, lambda p: 0.0))()
            other = jax.jit(lambda o=plain, c=weight_decay: trained(o, partial(nk.penalty, l2=c)))()
            np.testing.assert_allclose(one, other, rtol=close, atol=close)
            assert not np.allclose(one, KERNEL)


# --- which weights ----------------------------------------------------------------------------------------------------


class Mlp(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.LayerNorm()(linen.Dense(3)(x)))


class Model(nnx.Module):
    def __init__(self):
        self.fc = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
        self.again = self.fc
        self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(1))
        self.scale = nnx.LayerNorm(3, rngs=nnx.Rngs(2))


def filled(made, *args):
    """What `made` gives, with other numbers in it at once: nothing is compiled."""
    shapes = eqx.filter_eval_shape(made, *args)
    return jax.tree.map(lambda x: numbers(x.shape).astype(x.dtype) if hasattr(x, "shape") else x, shapes)


def of_linen():
    params = filled(Mlp().init, KEY, np.ones((1, 4)))
    return params, [params["params"][name]["kernel"] for name in ("Dense_0", "Dense_1")]


def of_nnx():
    model = Model()
    return model, [model.fc.kernel[...]]  # tied: once


def of_state():
    model = Model()
    return nnx.state(model), [model.fc.kernel[...]]


def of_equinox():
    model = filled(lambda key: eqx.nn.MLP(4, 3, 5, 1, key=key), KEY)
    return model, [layer.weight for layer in model.layers]


def of_haiku():
    kernels = jnp.asarray(KERNEL), jnp.asarray(OTHER)
    layers = [{"w": w, "b": jnp.ones(w.shape[1])} for w in kernels]
    return {"mlp/~/linear_0": layers[0], "mlp/~/linear_1": layers[1]}, kernels


def of_odd_leaves():
    kernel = jnp.asarray(KERNEL)
    others = {"kernel_int": jnp.ones((4, 3), jnp.int8), "key": jax.random.key(0), "count": np.int32(3), "none": None}
    return {"kernel": kernel, **others}, [kernel]


def of_an_array():
    return jnp.asarray(KERNEL[:, 0]), [KERNEL[:, 0]]


@pytest.mark.parametrize("made", [of_linen, of_nnx, of_state, of_equinox, of_haiku, of_odd_leaves, of_an_array])
def test_kernels_of_any_tree(made):
    params, kernels = made()
    expected = sum(pulled.penalty_l2(kernel) for kernel in kernels)
    np.testing.assert_allclose(nk.penalty(params, l2=1.0), expected, rtol=1e-6)


def test_select_and_all():
    given = {
        "bias": {"l1": 1.0, "select": "bias"},
        "all": {"l1": 1.0, "select": "all"},
        "per": {"group": 1.0, "per": 0},
    }
    found = jax.jit(lambda params: {name: nk.penalty(params, **more) for name, more in given.items()})(tree())
    expected = {"bias": 3.0, "all": 3.0 + np.abs(KERNEL).sum(), "per": pulled.penalty_group(KERNEL, (0,))}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)


def test_reference_by_names():
    both = [nk.penalty(tree(), toward=0.5, reference=r) for r in (tree(NEAR), {"dense.kernel": np.array(NEAR)})]
    np.testing.assert_allclose(both, 0.5 * pulled.penalty_toward(KERNEL, NEAR), rtol=1e-6)


def test_weights_in_two_parts():
    parts = nk.weight_norm(tree())
    parts["dense"]["kernel"] = nk.Normalized(parts["dense"]["kernel"].v, 3 * parts["dense"]["kernel"].g)

    terms, gradient = jax.jit(
        lambda parts: (
            nk.penalty_terms(parts, l1=1.0, l2=1.0, group=1.0),
            jax.grad(partial(nk.penalty, l2=0.5))(parts),
        )
    )(parts)
    for name, value in terms.items():
        np.testing.assert_allclose(value, TERMS[name][0](3 * KERNEL), rtol=1e-5)
    g = parts["dense"]["kernel"].g
    np.testing.assert_allclose(terms["l2"], pulled.penalty_l2(g), rtol=1e-6)
    np.testing.assert_allclose(gradient["dense"]["kernel"].g, 0.5 * g, rtol=1e-6)
    np.testing.assert_allclose(gradient["dense"]["kernel"].v, 0, atol=1e-6)
    only = nk.penalty(parts, l2=1.0, select="*.v")
    np.testing.assert_allclose(only, pulled.penalty_l2(KERNEL), rtol=1e-6)


def test_each_layer_of_a_stack_has_its_own_matrix():
    stack = numbers((2, 4, 3))
    model = filled(eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 3, key=key)), np.zeros((2, 2), np.uint32))
    model = eqx.tree_at(lambda m: m.weight, model, jnp.asarray(np.swapaxes(stack, 1, 2)))
    terms = jax.jit(partial(nk.penalty_terms, orthogonality=1.0, spectral=1.0))(model)
    for name, value in terms.items():
        expected = sum(TERMS[name][0](layer) for layer in stack)
        np.testing.assert_allclose(value, expected, rtol=2e-3)


def test_under_vmap_and_scan():
    stack = jnp.asarray(numbers((5, 4, 3)))

    def one(kernel):
        return nk.penalty({"kernel": kernel}, l2=0.5)

    alone = [0.5 * pulled.penalty_l2(kernel) for kernel in stack]
    mapped = jax.jit(jax.vmap(one))(stack)
    scanned = jax.lax.scan(lambda total, kernel: (total + one(kernel), None), 0.0, stack)[0]
    np.testing.assert_allclose(mapped, alone, rtol=1e-6)
    np.testing.assert_allclose(scanned, sum(alone), rtol=1e-6)


def test_functions_of_one_array():
    called = {
        "decayed": lambda w: nk.decayed(w, 0.5, lr=0.1),
        "coupled": lambda w: nk.coupled(w, w, 0.5),
        "soft": lambda w: nk.soft_threshold(w, 0.3),
        "max": lambda w: nk.max_norm(w, 1.0, OUT),
    }
    expected = {
        "decayed": 0.95 * KERNEL,
        "coupled": 1.5 * KERNEL,
        "soft": pulled.soft_threshold(KERNEL, 0.3),
        "max": pulled.max_norm(KERNEL, 1.0, OUT),
    }
    found = jax.jit(lambda w: {name: function(w) for name, function in called.items()})(jnp.asarray(KERNEL))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
