"""`nk.WeightNorm`: layers and models of flax nnx with their weights in two parts, in training and around it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import normal

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import linen, nnx

import normkit.jax as nk
from normkit.jax.walk import walk

RNG = np.random.default_rng(0)


def rngs():
    return nnx.Rngs(0)


def pictures(*shape):
    return jnp.asarray(RNG.standard_normal(shape), "float32")


def numbers(key, shape, dtype="float32"):
    """An initializer that compiles nothing."""
    return pictures(*shape)


QUICK = {"kernel_init": numbers, "rngs": nnx.Rngs(0)}


# --- every kind of layer ----------------------------------------------------------------------------------------------

LAYERS = {
    "Linear": (lambda: nnx.Linear(3, 4, **QUICK), (2, 3), {}, (1, 4)),
    "LinearGeneral": (lambda: nnx.LinearGeneral(3, (2, 4), **QUICK), (2, 3), {}, (1, 2, 4)),
    "Conv": (lambda: nnx.Conv(3, 4, (2,), **QUICK), (1, 5, 3), {}, (1, 1, 4)),
    "Conv, grouped": (lambda: nnx.Conv(4, 4, (2,), feature_group_count=2, **QUICK), (1, 5, 4), {}, (1, 1, 4)),
    "ConvTranspose": (lambda: nnx.ConvTranspose(3, 4, (2,), **QUICK), (1, 5, 3), {}, (1, 1, 4)),
    "Einsum": (lambda: nnx.Einsum("ab,bc->ac", (3, 4), (4,), **QUICK), (2, 3), {"per": -1}, (1, 4)),
}


@pytest.mark.parametrize(("made", "shape", "how", "of_g"), LAYERS.values(), ids=LAYERS)
def test_layers(made, shape, how, of_g):
    layer, x = made(), pictures(*shape)
    wrapped = nk.WeightNorm(layer, **how)
    assert wrapped.layer.kernel.g.shape == of_g
    assert type(wrapped.fold()) is type(layer)
    assert (wrapped.kernel[...] == layer.kernel[...]).all()
    np.testing.assert_allclose(*nnx.jit(lambda *both: [each(x) for each in both])(wrapped, layer), rtol=1e-5, atol=1e-6)


def parts_of(model):
    return [item.param.name for item in walk(model) if item.param.part == "g"]


def test_attention():
    layer, x = nnx.MultiHeadAttention(2, 4, decode=False, **QUICK), pictures(1, 2, 4)
    wrapped = nk.WeightNorm(layer)
    found, expected = nnx.jit(lambda *layers: [layer(x) for layer in layers])(wrapped, layer)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert len(parts_of(wrapped)) == 4


def test_recurrent_layers_and_cells():
    plain, x = nnx.RNN(nnx.GRUCell(3, 2, **QUICK)), pictures(1, 2, 3)
    layers = plain, nk.WeightNorm(plain), nnx.RNN(nk.WeightNorm(plain.cell))
    expected, *found = nnx.jit(lambda *layers: [layer(x) for layer in layers])(*layers)
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-5, atol=1e-6)
    assert [len(parts_of(layer)) for layer in layers] == [0, 2, 2]


def test_embeddings_when_selected():
    layer = nnx.Embed(5, 2, embedding_init=numbers, rngs=rngs())
    wrapped = nk.WeightNorm(layer, "embedding")
    assert wrapped.layer.embedding.g.shape == (5, 1)
    assert (wrapped(jnp.arange(3)) == layer(jnp.arange(3))).all()
    assert (wrapped.attend(jnp.ones((1, 2))) == layer.attend(jnp.ones((1, 2)))).all()  # a method, and an attribute:
    assert (wrapped.num_embeddings, (wrapped.embedding[...] == layer.embedding[...]).all()) == (5, True)


# --- training ---------------------------------------------------------------------------------------------------------


class Net(nnx.Module):
    def __init__(self, wrap=nk.WeightNorm):
        self.first = wrap(nnx.Linear(4, 6, **QUICK))
        self.second = wrap(nnx.Linear(6, 3, **QUICK))

    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))


def started(dtype):
    x, y, layers = normal.start()
    net = Net(lambda layer: layer)
    for layer, (w, b) in zip((net.first, net.second), layers, strict=True):
        layer.kernel, layer.bias = nnx.Param(jnp.asarray(w.T, dtype)), nnx.Param(jnp.asarray(b, dtype))
    return x, y, nk.WeightNorm(net)


def test_sgd():
    with jax.enable_x64(True):
        x, y, model = started("float64")
        optimizer = nnx.Optimizer(model, optax.sgd(normal.RATE), wrt=nnx.Param)
        traces = []

        @nnx.jit
        def step(model, optimizer):
            traces.append(1)
            grads = nnx.grad(lambda model: ((model(x) - y) ** 2).mean())(model)
            optimizer.update(model, grads)

        for _ in range(20):
            step(model, optimizer)
        assert len(traces) == 1
        for layer, (v, g, b) in zip((model.layer.first, model.layer.second), normal.trained(20), strict=True):
            for found, expected in ((layer.kernel.v[...].T, v), (layer.kernel.g[...].T, g), (layer.bias[...], b)):
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_call_stores_nothing():
    model = nk.WeightNorm(nnx.Linear(3, 4, **QUICK))
    model.layer.kernel.g[...] *= 2
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    model(jnp.ones((1, 3)))
    after = nnx.to_pure_dict(nnx.state(model))
    assert set(after["layer"]["kernel"]) == {"g", "v"}
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), before, after))


def test_the_layer_given_is_not_changed():
    layer = nnx.Linear(3, 4, **QUICK)
    kernel = layer.kernel
    wrapped = nk.WeightNorm(layer)
    wrapped.layer.kernel.v[...] += 1
    assert layer.kernel is kernel
    assert wrapped.layer.bias is layer.bias
    assert not (wrapped.layer.kernel.v[...] == kernel[...]).any()


class Busy(nnx.Module):
    """A layer that changes in a call: moving averages, random counts, an attribute; and that sows."""

    def __init__(self):
        self.linear = nnx.Linear(3, 4, **QUICK)
        self.norm = nnx.BatchNorm(4, rngs=rngs())
        self.drop = nnx.Dropout(0.5, rngs=rngs())
        self.others = nnx.List([self.norm])

    def __call__(self, x):
        x = self.drop(self.norm(self.linear(x)))
        self.sow(nnx.Intermediate, "seen", x.sum())
        if not hasattr(self, "cache"):
            self.cache = nnx.Cache(jnp.zeros(()))
        self.cache[...] += 1
        return x


def test_what_a_call_changes_stays_changed():
    model, x = nk.WeightNorm(Busy()), pictures(5, 3)
    call = nnx.jit(nnx.capture(nnx.Intermediate)(lambda model: model(x)))
    result, sown = call(model)
    assert sown["layer"]["seen"].get_value()[0] == pytest.approx(float(result.sum()), rel=1e-5)
    assert model.layer.norm.mean[...].any()
    assert model.layer.others[0].mean is model.layer.norm.mean
    assert int(model.layer.drop.rngs.count[...]) == 1
    assert model.layer.cache[...] == 1
    assert type(model.layer.linear.kernel) is nk.Normalized


# --- states, copies, stacks -------------------------------------------------------------------------------------------


def test_states_and_copies():
    model, x = nk.WeightNorm(nnx.Linear(3, 4, **QUICK)), pictures(2, 3)
    expected = model(x)
    graphdef, state = nnx.split(model)
    for other in (
        nnx.merge(graphdef, state),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        nnx.clone(model),
    ):
        assert isinstance(other, nk.WeightNorm)
        assert (other(x) == expected).all()
    other = nk.WeightNorm(nnx.Linear(3, 4, **QUICK))
    assert not (other(x) == expected).all()
    nnx.update(other, state)
    assert (other(x) == expected).all()
    assert {"/".join(path) for path, _ in nnx.to_flat_state(state)} == {
        "layer/bias",
        "layer/kernel/g",
        "layer/kernel/v",
    }
    assert "kernel=Normalized(g=float32[1, 4], v=float32[3, 4])" in repr(model)


def test_layers_made_under_vmap_and_run_by_scan():
    def made(kernel):
        return nk.WeightNorm(nnx.Linear(3, 3, kernel_init=lambda *_: kernel, rngs=rngs()))

    stack, x = nnx.jit(nnx.vmap(made))(pictures(4, 3, 3)), pictures(2, 3)
    assert stack.layer.kernel.g.shape == (4, 1, 3)

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def run(x, layer):
        return layer(x)

    result, kernels = nnx.jit(lambda stack: (run(x, stack), stack.kernel[...]))(stack)
    expected = x
    for each in np.asarray(stack.layer.kernel.v[...]):
        expected = expected @ each
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    np.testing.assert_allclose(kernels, stack.layer.kernel.v[...], rtol=1e-6)


def test_models_that_hold_wrapped_layers():
    """Outside jit the outputs are the same to the last bit."""
    model, x = Net(), pictures(2, 4)
    folded = nk.fold(model)
    assert (type(folded), type(folded.first)) == (Net, nnx.Linear)
    assert isinstance(model.first, nk.WeightNorm)
    assert (folded(x) == model(x)).all()
    assert (nk.materialize(model)(x) == model(x)).all()
    assert (nk.fold({"a": model})["a"](x) == model(x)).all()


# --- flax's own tests of its WeightNorm, for this one ----------------------------------------------------------------


def test_lengths_are_those_of_g():
    wrapped = nk.WeightNorm(nnx.Linear(8, 4, **QUICK))
    wrapped.layer.kernel.g[...] = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_allclose(np.linalg.norm(wrapped.kernel[...], axis=0), [1, 2, 3, 4], rtol=1e-6)


def test_linen_and_nnx_agree_after_a_step():
    x, kernel = pictures(2, 3), np.asarray(pictures(3, 4))
    layer = nnx.Linear(3, 4, **QUICK)
    layer.kernel[...] = kernel
    model = nk.WeightNorm(layer)
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def of_nnx(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: (model(x) ** 2).sum())(model))

    params = nk.weight_norm({"kernel": kernel, "bias": np.zeros(4, np.float32)})

    @jax.jit
    def of_linen(params):
        loss = lambda params: (linen.Dense(4).apply({"params": nk.materialize(params)}, x) ** 2).sum()  # noqa: E731
        updates, _ = optax.adam(0.1).update(jax.grad(loss)(params), optax.adam(0.1).init(params))
        return optax.apply_updates(params, updates)

    of_nnx(model, optimizer)
    stepped, parts = of_linen(params)["kernel"], model.layer.kernel
    np.testing.assert_allclose(parts.g[...], stepped.g, rtol=1e-5)
    np.testing.assert_allclose(parts.v[...], stepped.v, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(abs(parts.g[...] - params["kernel"].g), 0.1, rtol=1e-3)  # Adam's first step
