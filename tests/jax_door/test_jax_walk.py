"""Names, roles and axes of flax nnx, flax linen, equinox, haiku-like and plain trees."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.errors import ArgumentError

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
eqx = pytest.importorskip("equinox", reason="equinox is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import linen, nnx
from flax.core import freeze

import normkit.jax as nk
from normkit.jax.walk import walk


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.grouped = nnx.Conv(4, 4, (3,), feature_group_count=2, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 2, (3,), transpose_kernel=True, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(4, 6, rngs=rngs) for _ in range(11)])
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.embed = nnx.Embed(5, 4, rngs=rngs)
        self.head = self.embed
        self.attention = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)
        self.lora = nnx.LoRALinear(4, 6, lora_rank=2, rngs=rngs)
        self.A_log = nnx.Param(jnp.ones(3))
        self.seen = nnx.Intermediate(jnp.ones(7))


NNX = {
    "conv.kernel": ("kernel", (3,), (2,)),
    "conv.bias": ("bias", (0,), None),
    "grouped.kernel": ("kernel", (2,), None),
    "up.kernel": ("kernel", (1,), (2,)),
    "norm.scale": ("scale", (0,), None),
    "norm.bias": ("bias", (0,), None),
    "norm.mean": ("buffer", None, None),
    "norm.var": ("buffer", None, None),
    "blocks.10.kernel": ("kernel", (1,), (0,)),
    "embed.embedding": ("embedding", (0,), (1,)),
    "attention.query.kernel": ("kernel", (1, 2), (0,)),
    "attention.query.bias": ("bias", (0, 1), None),
    "attention.out.kernel": ("kernel", (2,), (0, 1)),
    "lora.kernel": ("kernel", (1,), (0,)),
    "lora.lora.lora_a": ("kernel", (1,), (0,)),
    "A_log": ("other", None, None),
}


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        boxed = linen.with_partitioning(linen.initializers.ones, (None, "model"))
        x = linen.Dense(4, kernel_init=boxed)(x)
        x = linen.BatchNorm(use_running_average=False)(x)
        x = linen.MultiHeadDotProductAttention(2)(x[:, None])
        x = linen.LayerNorm(name="final")(x)
        return linen.Conv(3, (2,))(x), linen.Embed(5, 2)(jnp.zeros(1, int))


LINEN = {
    "Dense_0.kernel": ("kernel", (1,), (0,), "Dense"),
    "Dense_0.bias": ("bias", (0,), None, "Dense"),
    "BatchNorm_0.scale": ("scale", (0,), None, "BatchNorm"),
    "BatchNorm_0.mean": ("buffer", None, None, "BatchNorm"),
    "final.scale": ("scale", (0,), None, ""),
    "Conv_0.kernel": ("kernel", (2,), (1,), "Conv"),
    "Embed_0.embedding": ("embedding", (0,), (1,), "Embed"),
    "MultiHeadDotProductAttention_0.query.kernel": ("kernel", (1, 2), (0,), ""),
    "MultiHeadDotProductAttention_0.out.kernel": ("kernel", (2,), (0, 1), ""),
}


class Equinox(eqx.Module):
    mlp: eqx.nn.MLP
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    embed: eqx.nn.Embedding
    last: eqx.nn.LayerNorm
    cell: eqx.nn.LSTMCell
    table: dict
    function: object = jnp.tanh
    rate: float = 0.5

    def __init__(self):
        key = jax.random.key(0)
        self.mlp = eqx.nn.MLP(2, 3, 4, 2, key=key)
        self.conv = eqx.nn.Conv2d(1, 2, 3, key=key)
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="ema")
        self.embed = eqx.nn.Embedding(3, 4, key=key)
        self.last = eqx.nn.LayerNorm(3)
        self.cell = eqx.nn.LSTMCell(2, 3, key=key)
        self.table = {"steps": jnp.zeros((), int), "noise": key}


EQUINOX = {
    "mlp.layers.0.weight": ("kernel", (0,), (1,)),
    "mlp.layers.2.bias": ("bias", (0,), None),
    "conv.weight": ("kernel", (0,), (1,)),
    "norm.weight": ("scale", (0,), None),
    "norm.ema_state_index.init.0": ("buffer", None, None),
    "embed.weight": ("embedding", (0,), (1,)),
    "last.weight": ("scale", (0,), None),
    "cell.weight_hh": ("kernel", (0,), (1,)),
    "table.steps": ("buffer", None, None),
}

PLAIN = {
    "mlp/~/linear_0": {"w": np.ones((2, 3)), "b": np.ones(3)},
    "ln": {"scale": np.ones(3), "offset": np.ones(3)},
    "embed": {"embeddings": np.ones((5, 2))},
    "layers": [{"W": np.ones((2, 3))}, {"W": np.ones((3, 2))}],
    "a.b": None,
    "temperature": np.ones(()),
    "key": jax.random.key(0),
}
OF_PLAIN = {
    "mlp.linear_0.w": ("kernel", (1,), (0,)),
    "mlp.linear_0.b": ("bias", (0,), None),
    "ln.scale": ("scale", (0,), None),
    "ln.offset": ("bias", (0,), None),
    "embed.embeddings": ("embedding", (0,), (1,)),
    "layers.1.W": ("kernel", (1,), (0,)),
    "temperature": ("other", None, None),
}


def found(tree):
    return {item.param.name: item.param for item in walk(tree)}


def assert_kinds(params, expected):
    kinds = {name: (params[name].role, params[name].out_axes, params[name].in_axes) for name in expected}
    assert kinds == {name: kind[:3] for name, kind in expected.items()}


@pytest.fixture(scope="module")
def net():
    return nnx.eval_shape(lambda: Net(nnx.Rngs(0)))  # shapes are all that names and roles need


@pytest.fixture(scope="module")
def variables():
    return jax.eval_shape(Linen().init, jax.random.key(0), jnp.ones((2, 3)))


def test_nnx_module(net):
    params = found(net)
    assert_kinds(params, NNX)
    assert params["embed.embedding"].aliases == ("head.embedding",)
    assert not [name for name in params if "drop" in name or "seen" in name]
    assert params["conv.kernel"].layer_type is nnx.Conv


FORMS = {
    "state": nnx.state,
    "params only": lambda net: nnx.state(net, nnx.Param),
    "split": nnx.split,
    "split in two": lambda net: nnx.split(net, nnx.Param, ...),
    "pure dict": lambda net: nnx.to_pure_dict(nnx.state(net, nnx.Param)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_nnx_have_the_same_names_and_roles(form, net):
    params = found(net)
    trainable = {name for name, param in params.items() if param.trainable}
    others = found(form(net))
    assert {name for name, param in others.items() if param.trainable} == trainable
    assert {name: param.role for name, param in others.items()} == {name: params[name].role for name in others}


def test_linen_variables(variables):
    params = found(variables)
    assert_kinds(params, LINEN)
    assert {name: params[name].layer for name in LINEN} == {name: kind[3] for name, kind in LINEN.items()}
    trained = [name for name, param in params.items() if param.trainable]
    assert list(found(variables["params"])) == trained
    assert list(found(freeze(variables))) == list(params)


def test_equinox_module():
    params = found(eqx.filter_eval_shape(Equinox))
    assert_kinds(params, EQUINOX)
    assert not [name for name in params if name.split(".")[-1] in ("function", "rate", "noise")]
    assert params["conv.weight"].rule == "layer Conv2d"
    assert list(params)[:2] == ["mlp.layers.0.weight", "mlp.layers.0.bias"]


def test_plain_tree():
    params = found(PLAIN)
    assert_kinds(params, OF_PLAIN)
    assert "key" not in params


def test_numbers_in_keys_are_sorted_as_numbers():
    assert list(found({f"layer_{i}": np.ones(1) for i in (10, 9, 2)})) == ["layer_2", "layer_9", "layer_10"]


def test_one_array_in_two_places_of_a_tree_is_not_tied():
    zeros = jnp.zeros(3)
    assert list(found({"a": zeros, "b": zeros})) == ["a", "b"]


def test_names_are_unique():
    assert list(found({"a/b": np.ones(1), "a": {"b": np.ones(2)}})) == ["a.b", "a.b~2"]


def test_names_are_the_same_while_jax_traces():
    def names(tree):
        seen = []
        jax.jit(lambda tree: seen.extend(found(tree)))(tree)
        return seen

    assert names(PLAIN) == list(found(PLAIN))
    net, seen = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), []
    nnx.jit(lambda net: seen.extend(found(net)))(net)
    assert seen == list(found(net)) == ["bias", "kernel"]


def test_explain(net):
    assert "- role buffer" in str(nk.explain(net))
    assert [row.name for row in nk.explain(net, nnx.Conv).rows if row.chosen] == [
        "conv.bias",
        "conv.kernel",
        "grouped.bias",
        "grouped.kernel",
    ]


def test_gradient_and_update_of_an_nnx_step():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        before = nnx.clone(model)
        grads = nnx.grad(lambda model: (model(jnp.ones((1, 3))) ** 2).sum())(model)
        optimizer.update(model, grads)
        return nk.stats(params=model, grads=grads, before=before)

    old = np.array(model.kernel[...], np.float64)
    stats = step(model, optimizer)
    new = np.array(model.kernel[...], np.float64)
    place = [param.name for param in stats.listing.params].index("kernel")
    assert np.asarray(stats.update)[2, place] == pytest.approx(((new - old) ** 2).sum(), rel=1e-12)
    assert np.asarray(stats.weight)[2, place] == pytest.approx((new**2).sum(), rel=1e-12)


def test_variables_that_nnx_changes_in_place_are_no_old_weights():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    before = nnx.state(model)
    model.kernel[...] += 1
    with pytest.raises(ArgumentError, match=r"^before and params hold the same 2 arrays, .* by nnx\.clone"):
        nk.stats(params=model, before=before)


def test_equinox_gradients_lack_what_is_no_array():
    @eqx.filter_jit
    def step(model):
        grads = eqx.filter_grad(lambda model: model(jnp.ones(2)).sum())(model)
        return nk.stats(params=model, grads=grads)

    stats = step(eqx.nn.Sequential([eqx.nn.Linear(2, 1, key=jax.random.key(0)), eqx.nn.Lambda(jnp.tanh)]))
    assert [columns for _, columns in stats.columns] == [(0, 1)] * 2
