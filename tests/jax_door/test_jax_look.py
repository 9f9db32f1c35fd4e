"""A look at the norms of a tree, and what is no tree of weights."""

from __future__ import annotations

import pytest

from normkit.errors import ArgumentError, ModelError

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import linen, nnx

import normkit.jax as nk


def test_norms():
    assert nk.norms({"w": jnp.full((2, 3), 2.0), "b": jnp.ones(3)}, "l1") == {"b": 3.0, "w": 12.0}
    assert nk.norms({"w": jnp.full((2, 3), 2.0)}, "l1", "out")["w"].tolist() == [4, 4, 4]
    assert nk.norms({"w": jnp.full((2, 3), 2.0)}, "spectral")["w"] == pytest.approx(24**0.5, rel=1e-6)
    assert nk.norms(nnx.LayerNorm(3, rngs=nnx.Rngs(0)), select="scale") == {"scale": 3**0.5}


def stack_of_linear():
    return eqx.filter_vmap(lambda key: eqx.nn.Linear(3, 7, key=key))(jax.random.split(jax.random.key(0), 5))


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (
            stack_of_linear,
            r"weight of shape \(5, 7, 3\) is a stack of layers, and this norm is of one matrix",
        ),
        (
            lambda: {"kernel": jnp.ones((6, 8, 8))},
            r"kernel of shape \(6, 8, 8\) may be a stack of layers, .*: give one",
        ),
    ],
    ids=["equinox", "a tree of dicts"],
)
def test_operator_norms_are_of_one_layer(tree, sentence):
    with pytest.raises(ArgumentError, match=f"^{sentence}"):
        nk.norms(tree(), "spectral")
    one = jax.tree.map(lambda x: x[0], tree())
    assert len(nk.norms(one, "spectral")) == 1


WRONG = {
    "nothing": ({}, ArgumentError, r"params=\{\} holds no array; give a tree of arrays, or a flax or equinox module"),
    "a number": (3.0, ArgumentError, r"params=3\.0 holds no array"),
    "a class": (eqx.nn.MLP, ArgumentError, r"params=MLP is a class; give a tree of arrays, or an instance"),
    "a linen module": (
        linen.Dense(2),
        ModelError,
        r"params=Dense\(\.\.\.\): a linen module holds no weights; give what its init",
    ),
    "an optimizer": (
        lambda: nnx.Optimizer(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), optax.sgd(1.0), wrt=nnx.Param),
        ModelError,
        r"params=Optimizer\(\.\.\.\): this optimizer holds no weights; give the model itself",
    ),
}


@pytest.mark.parametrize(("given", "kind", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_no_tree_of_weights(given, kind, sentence):
    tree = given() if getattr(given, "__name__", "") == "<lambda>" else given
    with pytest.raises(kind, match=f"^{sentence}"):
        nk.norms(tree)
