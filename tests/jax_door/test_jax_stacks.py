"""Axes of stacks of layers, as `nnx.vmap`, `eqx.filter_vmap` and `nn.scan` make them: what they are, or nothing."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")

import jax.numpy as jnp
from flax import linen, nnx

from normkit.jax.walk import walk


def kinds(tree):
    return {item.param.name: (item.param.role, item.param.out_axes, item.param.in_axes) for item in walk(tree)}


def assert_kinds(tree, expected):
    found = kinds(tree)
    assert {name: found[name] for name in expected} == expected


STACKED = {
    "linear.kernel": ("kernel", (0, 2), (0, 1)),
    "linear.bias": ("bias", (0, 1), None),
    "conv.kernel": ("kernel", (0, 4), (0, 3)),
    "conv.bias": ("bias", (0, 1), None),
    "embed.embedding": ("embedding", (0, 1), (0, 2)),
    "norm.scale": ("scale", (0, 1), None),
    "attention.query.kernel": ("kernel", (0, 2, 3), (0, 1)),
    "attention.query.bias": ("bias", (0, 1, 2), None),
    "attention.out.kernel": ("kernel", (0, 3), (0, 1, 2)),
}


class Block(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 6, rngs=rngs)
        self.conv = nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.embed = nnx.Embed(5, 4, rngs=rngs)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)


def test_stack_of_nnx_layers():
    made = nnx.vmap(Block, in_axes=0, out_axes=0)
    assert_kinds((nnx.eval_shape(lambda: made(nnx.Rngs(0).split(5)))), STACKED)


STACKED_EQUINOX = {
    "linear.weight": ("kernel", (0, 1), (0, 2)),
    "linear.bias": ("bias", (0, 1), None),
    "conv.weight": ("kernel", (0, 1), (0, 2)),
    "conv.bias": ("bias", (0, 1), None),
    "embed.weight": ("embedding", (0, 1), (0, 2)),
    "cell.weight_hh": ("kernel", (0, 1), (0, 2)),
    "cell.bias": ("bias", (0, 1), None),
}


def test_stack_of_equinox_layers():
    def made(key):
        return {
            "linear": eqx.nn.Linear(3, 7, key=key),
            "conv": eqx.nn.Conv2d(1, 2, 3, key=key),
            "embed": eqx.nn.Embedding(3, 4, key=key),
            "cell": eqx.nn.LSTMCell(2, 3, key=key),
        }

    keys = jax.random.split(jax.random.key(0), 5)
    assert_kinds((eqx.filter_eval_shape(eqx.filter_vmap(made), keys)), STACKED_EQUINOX)


STACKED_LINEN = {
    "blocks.Dense_0.kernel": ("kernel", None, None),
    "blocks.Dense_1.kernel": ("kernel", (0, 2), (0, 1)),
    "blocks.Dense_1.bias": ("bias", (0, 1), None),
    "blocks.Conv_0.kernel": ("kernel", (0, 3), (0, 2)),
    "blocks.MultiHeadDotProductAttention_0.query.kernel": ("kernel", None, None),
    "blocks.MultiHeadDotProductAttention_0.out.kernel": ("kernel", None, None),
}


def test_stack_of_linen_layers():
    class Layer(linen.Module):
        @linen.compact
        def __call__(self, x, _):
            x = linen.Dense(4, use_bias=False)(linen.Dense(4)(x))
            x = linen.Conv(4, (2,))(x)
            return linen.MultiHeadDotProductAttention(2)(x), None

    layers = linen.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    tree = jax.eval_shape(lambda: layers(name="blocks").init(jax.random.key(0), jnp.ones((2, 5, 4)), None))
    assert_kinds(({"params": {"blocks": tree["params"]}}), STACKED_LINEN)


def test_shapes_that_a_stack_and_a_filter_may_have():
    array = jnp.zeros((6, 8, 8))
    tree = {"blocks": {"w": array}, "conv": {"w": array}, "told": {"w": array, "b": jnp.zeros(8)}}
    assert [(out_axes, in_axes) for role, out_axes, in_axes in kinds(tree).values() if role == "kernel"] == [
        (None, None),
        ((2,), (1,)),
        ((2,), (1,)),
    ]
