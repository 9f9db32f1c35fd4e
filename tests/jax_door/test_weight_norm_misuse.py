"""What people type by mistake around weights in two parts, and the sentences they read."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from normkit.errors import ArgumentError, ModelError, StateError

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import linen, nnx
from flax.training.train_state import TrainState

import normkit.jax as nk

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
KERNEL, BIAS, X = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3,), (5, 4)))


def plain():
    return {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}


def linear():
    return nnx.Linear(4, 3, kernel_init=lambda *_: jnp.asarray(KERNEL), rngs=nnx.Rngs(0))


def state():
    return TrainState.create(apply_fn=None, params=plain(), tx=optax.adam(0.1))


def twice():
    variable = nnx.Param(jnp.ones((4, 3)))
    return {"a": {"kernel": variable}, "b": {"kernel": variable}}


def donated():
    tree = jax.tree.map(lambda x: x + 0, plain())
    tree["kernel"].delete()
    return tree


REFUSED = {
    "donated": (lambda: nk.weight_norm(donated()), r"kernel of shape \(4, 3\) is deleted: it was donated to a jitted"),
    "twice": (
        lambda: nk.weight_norm(nk.weight_norm(plain())),
        r"kernel of shape \(4, 3\) is already normalized; leave",
    ),
    "a part": (lambda: nk.weight_norm(nk.weight_norm(plain()), "kernel.g"), r"select='kernel\.g' matches none of 2"),
    "tied": (lambda: nk.weight_norm(twice()), r"a\.kernel is tied to b\.kernel: both are one variable, and would come"),
    "one of two": (lambda: nk.weight_norm(twice(), "b.kernel"), r"a\.kernel is tied to b\.kernel"),
    "nothing": (lambda: nk.weight_norm({}), r"params=\{\} holds no array"),
    "no kernel": (lambda: nk.weight_norm({"b": BIAS}), r"none of the 1 arrays given is a kernel; name those to norm"),
    "no such name": (lambda: nk.weight_norm(plain(), "encoder"), r"select='encoder' matches none of 2 parameters"),
    "a class": (lambda: nk.weight_norm(eqx.nn.MLP), r"params=MLP is a class; give a tree of arrays, or an instance"),
    "integers": (
        lambda: nk.weight_norm({"kernel": np.ones((2, 3), int)}, lambda param: True),
        r"kernel is of int64; expected a weight that is trained: leave it out",
    ),
    "complex numbers": (
        lambda: nk.weight_norm({"kernel": np.ones((2, 3), complex)}),
        r"kernel is of complex128; weight normalization here is of real numbers",
    ),
    "keys": (lambda: nk.weight_norm({"kernel": KEY}), r"params=\{'kernel': .*\} holds no array"),
    "an unknown word": (
        lambda: nk.weight_norm(plain(), per="rows"),
        r"per is 'rows'; it must be 'tensor', 'out', 'in'",
    ),
    "no such axis": (lambda: nk.weight_norm(plain(), per=2), r"per is 2, and an array of shape \(4, 3\) has no axis 2"),
    "unknown axes": (
        lambda: nk.weight_norm({"kernel": np.ones((2, 3, 4))}),
        r"per is 'out', but its layer does not say which axes of kernel of shape \(2, 3, 4\) these are: give the numb",
    ),
    "p": (lambda: nk.weight_norm(plain(), p=0.5), r"p=0\.5: expected a number of at least 1, or math\.inf"),
    "a TrainState": (lambda: nk.weight_norm(state()), r"weight_norm\(TrainState\): its optimizer state belongs to the"),
    "a TrainState to fold": (lambda: nk.fold(state()), r"fold\(TrainState\): its optimizer state belongs"),
    "a state of optax": (
        lambda: nk.materialize(optax.adam(1.0).init(nk.weight_norm(plain()))),
        r"materialize\(ScaleByAdamState\): this is an optimizer's state, no weights; make it anew",
    ),
    "a state of optax beside weights": (
        lambda: nk.fold({"params": nk.weight_norm(plain()), "opt": optax.sgd(1.0, 0.9).init(plain())}),
        r"fold\(TraceState\): this is an optimizer's state",
    ),
    "a state of nnx": (
        lambda: nk.fold(nnx.state(nk.WeightNorm(linear()))),
        r"fold\(State\): none of its 3 arrays is in two parts, g and v; expected the module, as nnx\.merge makes it",
    ),
    "nothing to fold": (lambda: nk.fold(plain()), r"fold\(dict\): none of its 2 arrays is in two parts, g and v"),
    "fold inside jit": (
        lambda: jax.jit(nk.fold)(nk.weight_norm(plain())),
        r"fold\(dict\): its arrays are being traced; inside jit take nk\.materialize instead",
    ),
    "half a tree": (
        lambda: nk.materialize(eqx.partition(nk.weight_norm(plain()), lambda x: x.ndim > 3)[0]),
        r"Normalized\(g=None, v=None\) lacks an array: put the parts of the tree together first",
    ),
    "g of another shape": (
        lambda: nk.materialize(nk.Normalized(jnp.ones((4, 3)), jnp.ones((1, 4)))),
        r"g has shape \(1, 4\) beside v of shape \(4, 3\); expected as many axes, each of v's size or of size 1",
    ),
}


@pytest.mark.parametrize(("call", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(call, sentence):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        call()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (lambda: linen.Dense(2), r"params=Dense\(\.\.\.\): a linen module holds no weights; give what its init"),
        (
            linear,
            r"weight_norm\(Linear\): the weights of an nnx module .*WeightNorm",
        ),
        (lambda: [linear()], r"weight_norm\(list\): the weights of an nnx module"),
    ],
    ids=["linen", "nnx", "nnx in a list"],
)
def test_modules_are_refused(given, sentence):
    with pytest.raises(ModelError, match=f"^{sentence}"):
        nk.weight_norm(given())


FORGOTTEN = {
    "linen": lambda parts: linen.Dense(3).apply({"params": parts}, X),
    "linen in jit": lambda parts: jax.jit(linen.Dense(3).apply)({"params": parts}, X),
    "equinox": lambda parts: nk.weight_norm(eqx.nn.Linear(4, 3, key=KEY))(X[0]),
    "x @ w": lambda parts: jnp.asarray(X) @ parts["kernel"],
    "w @ x": lambda parts: parts["kernel"] @ jnp.ones(3),
    "jnp": lambda parts: jnp.sum(parts["kernel"]),
    "NumPy": lambda parts: np.asarray(parts["kernel"]),
    "an index": lambda parts: parts["kernel"][0],
}


@pytest.mark.parametrize("call", FORGOTTEN.values(), ids=FORGOTTEN)
def test_materialize_forgotten(call):
    sentence = r"^a weight in two parts, Normalized\(g=.*\): give the model what nk\.materialize\(params\) returns"
    with pytest.raises(StateError, match=sentence):
        call(nk.weight_norm(plain()))


def test_the_layer_called_in_place_of_its_wrapper():
    with pytest.raises(StateError, match=r"^a weight in two parts, .*: call the nk\.WeightNorm that holds its layer"):
        nk.WeightNorm(linear()).layer(X)


def test_a_weight_is_set_by_its_parts():
    with pytest.raises(ArgumentError, match=r"^WeightNorm\(Linear\)\.kernel = .*: kernel is worked out at each call"):
        nk.WeightNorm(linear()).kernel = nnx.Param(KERNEL)


def test_an_attribute_of_arrays():
    with pytest.raises(AttributeError, match=r"^'T' was asked of a weight in two parts, .* nk\.materialize"):
        _ = nk.weight_norm(plain())["kernel"].T


def test_the_door_imports_neither_flax_nor_optax():
    lines = (
        "import sys, normkit.jax as nk; assert {'WeightNorm', 'constrain', 'decay', 'proximal'} <= set(dir(nk)); "
        "print({'flax', 'optax'} & set(sys.modules)); nk.decay; print('flax' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["set()", "False"]
    with pytest.raises(AttributeError, match=r"^module 'normkit\.jax' has no attribute 'weightnorm'"):
        _ = nk.weightnorm


# --- nnx --------------------------------------------------------------------------------------------------------------


class Shared(nnx.Module):
    def __init__(self):
        self.a = self.b = linear()


REFUSED_BY_NNX = {
    "twice": (
        lambda: nk.WeightNorm(nk.WeightNorm(linear())),
        r"layer\.kernel of shape .* already",
    ),
    "tied": (lambda: nk.WeightNorm(Shared()), r"a\.kernel is tied to b\.kernel: both are one variable"),
    "a class": (
        lambda: nk.WeightNorm(nnx.Linear),
        r"WeightNorm\(Linear\): this is a class; give an instance: Linear\(",
    ),
    "a tree": (lambda: nk.WeightNorm({"kernel": 1}), r"WeightNorm\(dict\): expected an nnx module; a tree of arrays"),
    "no kernel": (lambda: nk.WeightNorm(nnx.LayerNorm(2, rngs=nnx.Rngs(0))), r"none of the 2 arrays given is a kernel"),
    "unknown axes": (
        lambda: nk.WeightNorm(
            nnx.Einsum("ab,bc->ac", (3, 4), kernel_init=lambda *_: jnp.ones((3, 4)), rngs=nnx.Rngs(0))
        ),
        r"per is 'out', but Einsum does not say which axes of kernel of shape \(3, 4\) these are",
    ),
    "p": (lambda: nk.WeightNorm(linear(), p=0), r"p=0: expected a number of at least 1"),
    "nothing to fold": (
        lambda: nk.fold(nnx.LayerNorm(2, rngs=nnx.Rngs(0))),
        r"fold\(LayerNorm\): none of its 2 arrays",
    ),
}


@pytest.mark.parametrize(("call", "sentence"), REFUSED_BY_NNX.values(), ids=REFUSED_BY_NNX)
def test_refused_by_nnx(call, sentence):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        call()


def test_linen_modules_are_refused():
    with pytest.raises(ModelError, match=r"^WeightNorm\(Dense\): a linen module holds no weights; use nk\.weight_norm"):
        nk.WeightNorm(linen.Dense(2))


def test_no_such_attribute():
    with pytest.raises(AttributeError, match="kernels"):
        _ = nk.WeightNorm(linear()).kernels
