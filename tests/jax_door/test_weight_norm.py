"""A tree with its weights in two parts: what stands where, what comes back, and what is refused."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import numpy as np
import pytest

import normal

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import linen, nnx, serialization
from flax.core import freeze

import normkit.jax as nk
from normkit.errors import ArgumentError

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
KERNEL, BIAS, X = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3,), (5, 4)))


def plain():
    return {"kernel": jnp.asarray(KERNEL), "bias": jnp.asarray(BIAS)}


def assert_same(one, other):
    """Structure, type, dtype and every bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(*(jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (one, other)), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_assert_same_can_fail():
    with pytest.raises(AssertionError):
        assert_same({"a": jnp.ones(2)}, {"a": jnp.ones(2) + 1e-6})


# --- forms of trees ---------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    kernel: object
    bias: object


class Deep(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.tanh(linen.Dense(3)(x))
        cell = linen.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return cell()(x, None)[0]


class Block(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return linen.Dense(3)(x), None


def filled(made, *args):
    """What `made` gives, with numbers in it at once: nothing is compiled."""
    shapes = jax.eval_shape(made, *args)
    return jax.tree.map(lambda x: np.sin(np.arange(x.size, dtype=np.float32) + x.ndim).reshape(x.shape), shapes)


def of_linen():
    return filled(Deep().init, KEY, X)


def of_equinox():
    return filled(lambda key: eqx.filter(eqx.nn.MLP(4, 3, 5, 1, key=key), eqx.is_array), KEY)


def of_nnx():
    return filled(lambda: nnx.state(nnx.Linear(4, 3, rngs=nnx.Rngs(0))))


FORMS = {
    "dicts": (plain, "kernel"),
    "NumPy": (lambda: {"kernel": KERNEL, "bias": BIAS}, "kernel"),
    "lists": (lambda: [{"W": jnp.asarray(KERNEL)}, None, {"W": jnp.asarray(KERNEL)}], "2.W"),
    "a named tuple": (lambda: Pair(**plain()), "kernel"),
    "haiku": (lambda: {"mlp/~/linear_0": {"w": jnp.asarray(KERNEL), "b": jnp.asarray(BIAS)}}, "mlp.linear_0.w"),
    "linen": (of_linen, "Dense_0.kernel"),
    "linen, params": (lambda: of_linen()["params"], "ScanBlock_0.Dense_0.kernel"),
    "linen, frozen": (lambda: freeze(of_linen()), "Dense_0.kernel"),
    "equinox": (of_equinox, "layers.1.weight"),
    "nnx state": (of_nnx, "kernel"),
    "nnx split": (lambda: (nnx.split(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))[0], of_nnx()), "kernel"),
    "nnx pure dict": (lambda: nnx.to_pure_dict(of_nnx()), "kernel"),
}


@pytest.mark.parametrize(("made", "name"), FORMS.values(), ids=FORMS)
def test_there_and_back(made, name):
    tree = made()
    parts = nk.weight_norm(tree)
    assert_same(nk.fold(parts), tree)
    assert_same(nk.materialize(parts), tree)
    assert_same(tree, made())
    assert {name, f"{name}.g", f"{name}.v"} <= set(nk.norms(parts))


def test_the_model_computes_what_it_did():
    variables = of_linen()
    assert_same(Deep().apply(nk.materialize(nk.weight_norm(variables)), X), Deep().apply(variables, X))
    model = eqx.nn.Linear(4, 3, key=KEY)
    assert_same(nk.materialize(nk.weight_norm(model))(X[0]), model(X[0]))


@pytest.mark.parametrize(
    ("per", "kept", "p"),
    [("out", (1,), 2), ("in", (0,), 1), ("tensor", (), 3), (0, (0,), np.inf), (-1, (1,), 2.5), ((0, 1), (0, 1), 2)],
)
def test_parts(per, kept, p):
    node = nk.weight_norm(plain(), per=per, p=p)["kernel"]
    assert_same(node.v, jnp.asarray(KERNEL))
    np.testing.assert_allclose(node.g, normal.lengths(KERNEL, kept, p), rtol=1e-6)
    moved = nk.materialize({"w": nk.Normalized(node.v * 3 + 1, node.g + 1, p)})["w"]
    expected = normal.weight(np.asarray(node.v * 3 + 1), np.asarray(node.g + 1), kept, p)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_a_stack_of_layers_keeps_its_own_lengths():
    node = nk.weight_norm(of_linen())["params"]["ScanBlock_0"]["Dense_0"]["kernel"]
    assert (node.v.shape, node.g.shape) == ((2, 3, 3), (2, 1, 3))
    stack = jax.eval_shape(eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 3, key=key)), jax.random.split(KEY, 2))
    assert nk.weight_norm(stack).weight.g.shape == (2, 3, 1)


def test_boxes_keep_what_they_know():
    boxed = linen.with_partitioning(linen.initializers.ones, ("in", "out"))
    variables = linen.Dense(3, kernel_init=boxed).init(KEY, X)
    node = nk.weight_norm(variables)["params"]["kernel"]
    assert (node.g.names, node.v.names) == ((None, "out"), ("in", "out"))
    assert linen.get_partition_spec(nk.weight_norm(variables))["params"]["kernel"].g == jax.P(None, "out")
    assert nk.fold(nk.weight_norm(variables))["params"]["kernel"].names == ("in", "out")
    logical = linen.with_logical_partitioning(linen.initializers.ones, ("in", "out"))
    params = linen.Dense(3, kernel_init=logical).init(KEY, X)["params"]
    assert type(nk.weight_norm(params, per="in")["kernel"].g).__name__ == "LogicallyPartitioned"
    assert nk.weight_norm(params, per="in")["kernel"].g.names == ("in", None)
    sharded = nnx.Param(jnp.ones((4, 3)), out_sharding=("in", "out"), eager_sharding=False)
    node = nk.weight_norm({"kernel": sharded})["kernel"]
    assert (node.g.out_sharding, node.v.out_sharding) == ((None, "out"), ("in", "out"))


def test_selection():
    tree = {"a": plain(), "embed": {"embedding": jnp.ones((5, 2))}}
    assert isinstance(nk.weight_norm(tree)["embed"]["embedding"], jax.Array)
    both = nk.weight_norm(nk.weight_norm(tree), "embedding")
    assert both["embed"]["embedding"].g.shape == (5, 1)
    assert_same(nk.fold(both), tree)
    rest = nk.weight_norm(nk.weight_norm({"a": plain(), "b": plain()}, "a.kernel"), "!a.kernel")
    assert rest["b"]["kernel"].g.shape == (1, 3)


def test_optax_pairs_of_weights_are_weights():
    pair = optax.LookaheadParams.init_synced(plain())
    assert type(nk.fold(nk.weight_norm(pair))) is optax.LookaheadParams


def test_checkpoints_of_flax():
    parts = nk.weight_norm(plain(), p=3)
    state = serialization.to_state_dict(parts)
    assert sorted(state["kernel"]) == ["g", "v"]
    blank = jax.tree.map(jnp.zeros_like, parts)
    assert_same(serialization.from_bytes(blank, serialization.to_bytes(parts)), parts)
    with pytest.raises(ArgumentError, match=r"was saved where Normalized\(.*\) stands: load it into the params as"):
        serialization.from_state_dict(parts, serialization.to_state_dict(plain()))


def test_a_node():
    parts = nk.weight_norm(plain(), p=3)
    assert repr(parts["kernel"]) == "Normalized(g=float32[1, 3], v=float32[4, 3], p=3)"
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(parts)[0]]
    assert paths == ["['bias']", "['kernel'].v", "['kernel'].g"]
    with pytest.raises(AttributeError):
        parts["kernel"].g = 1
    for other in (pickle.loads(pickle.dumps(parts)), copy.deepcopy(parts), jax.tree.map(lambda x: x, parts)):
        assert_same(other, parts)
        assert hash(jax.tree.structure(other)) == hash(jax.tree.structure(parts))
    assert jax.tree.structure(nk.weight_norm(plain())) != jax.tree.structure(parts)


def test_without_parts_a_tree_is_itself():
    tree, model = plain(), nnx.LayerNorm(3, rngs=nnx.Rngs(0))
    assert nk.materialize(tree) is tree
    assert nk.materialize(model) is model


def test_shapes_alone():
    shapes = jax.eval_shape(plain)
    parts = nk.weight_norm(shapes)
    assert parts["kernel"].g.shape == (1, 3)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), jax.eval_shape(nk.weight_norm, shapes)["kernel"].g) == (
        (1, 3),
        jnp.float32,
    )
    assert nk.materialize(parts)["kernel"].shape == jax.eval_shape(nk.materialize, parts)["kernel"].shape == (4, 3)
