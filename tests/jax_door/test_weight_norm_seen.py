"""Weights in two parts, seen by `norms`, `explain`, `stats` and a recorder: the weight itself, g and v."""

from __future__ import annotations

import numpy as np
import pytest

import normal
import normkit
import reference

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

import jax.numpy as jnp
from flax import nnx

import normkit.jax as nk
from normkit.jax.walk import walk
from normkit.types import SUMS

SQ, DOT = SUMS.index("sq"), SUMS.index("dot")
RNG = np.random.default_rng(0)
KERNEL, BIAS, X = (RNG.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3,), (5, 4)))


def parts():
    """With a g that is not the length of v any more."""
    tree = nk.weight_norm({"layer": {"kernel": KERNEL, "bias": BIAS}})
    return {"layer": {**tree["layer"], "kernel": nk.Normalized(KERNEL, tree["layer"]["kernel"].g * 2)}}


def linear():
    layer = nnx.Linear(4, 3, kernel_init=lambda key, shape, dtype: jnp.asarray(KERNEL), rngs=nnx.Rngs(0))
    return nk.WeightNorm(layer)


def weight_of(node):
    return normal.weight(node.v, node.g, (1,))


# --- the walk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tree", "name"), [(parts, "layer.kernel"), (linear, "layer.kernel")], ids=["tree", "nnx"])
def test_names_parts_roles_and_axes(tree, name):
    params = {item.param.name: item.param for item in walk(tree())}
    assert [params[name + end].part for end in ("", ".g", ".v")] == ["effective", "g", "v"]
    assert [params[name + end].shape for end in ("", ".g", ".v")] == [(4, 3), (1, 3), (4, 3)]
    assert {params[name + end].role for end in ("", ".g", ".v")} == {"kernel"}
    assert {params[name + end].out_axes for end in ("", ".g", ".v")} == {(1,)}
    assert params["layer.bias"].part == "whole"


def test_a_layer_in_two_places_has_aliases():
    layer = linear()
    params = {item.param.name: item.param for item in walk({"a": layer, "b": layer})}
    assert params["a.layer.kernel"].aliases == ("b.layer.kernel",)
    assert params["a.layer.kernel.g"].aliases == ("b.layer.kernel.g",)


def test_names_are_those_of_gradients():
    layer = linear()
    grads = nnx.jit(nnx.grad(lambda layer: layer(X).sum()))(layer)
    assert {item.param.name for item in walk(grads)} == {item.param.name for item in walk(layer)} - {"layer.kernel"}


def test_norms_and_explain():
    tree = parts()
    node = tree["layer"]["kernel"]
    expected = {"": weight_of(node), ".g": node.g, ".v": node.v}
    found = nk.norms(tree, select="kernel")
    assert found == {f"layer.kernel{end}": pytest.approx(reference.norm_of(x, "l2")) for end, x in expected.items()}
    rows = nk.norms(tree, "l2", "out", select="kernel")["layer.kernel"]
    assert rows == pytest.approx(np.asarray(node.g).ravel(), rel=1e-6)
    spectral = np.linalg.norm(expected[""], 2)
    assert nk.norms(tree, "spectral", select=lambda param: param.part == "effective")["layer.kernel"] == pytest.approx(
        spectral, rel=1e-5
    )
    assert "layer.kernel.g" in str(nk.explain(tree))


# --- a step -----------------------------------------------------------------------------------------------------------


def moved(tree, by=1e-3):
    return jax.tree.map(lambda x: x + np.asarray(by * np.cos(np.arange(x.size)).reshape(x.shape), x.dtype), tree)


def column(stats, name, quantity):
    """The sums of one tensor; None where there are none."""
    place = [param.name for param in stats.listing.params].index(name)
    for each, matrix, columns in stats.matrices():
        if each == quantity and place in columns:
            return np.asarray(matrix)[:, columns.index(place)]
    return None


def assert_seen(stats, old, new, tolerance):
    before, after = (weight_of(tree["layer"]["kernel"]) for tree in (old, new))
    change = after - before
    assert column(stats, "layer.kernel", "weight")[SQ] == pytest.approx((after**2).sum(), rel=1e-6)
    update = column(stats, "layer.kernel", "update")
    assert update[SQ] == pytest.approx((change**2).sum(), rel=tolerance)
    assert update[DOT] == pytest.approx((before * change).sum(), rel=tolerance)
    assert column(stats, "layer.kernel", "grad") is None
    assert column(stats, "layer.kernel.g", "grad")[SQ] == pytest.approx(3)


@pytest.mark.parametrize("inside", [True, False], ids=["inside jit", "outside"])
def test_stats(inside):
    old = parts()
    new = moved(old)
    updates = jax.tree.map(lambda a, b: a - b, new, old)
    grads = jax.tree.map(np.ones_like, old)
    take = jax.jit(nk.stats) if inside else nk.stats
    assert_seen(take(new, grads, updates), old, new, 1e-5)
    exact = take(new, grads, before=old)  # the weights that a model has in float32
    assert_seen(exact, old, new, 1e-3)
    alone = take(None, grads, updates)
    assert column(alone, "layer.kernel", "update") is None
    assert column(alone, "layer.kernel.v", "update")[SQ] > 0


def test_gradients_of_parts_beside_joined_weights_are_not_those_of_the_weights():
    tree = {"kernel": parts()["layer"]["kernel"]}
    stats = nk.stats(nk.materialize(tree), grads=tree)
    assert [quantity for quantity, *_ in stats.matrices()] == ["weight"]


def test_stats_of_a_small_update_are_exact():
    """Taken from the parts in float64: the weight in float32 hardly shows it."""
    old = parts()
    updates = jax.tree.map(lambda x: np.full_like(x, 1e-9), old)
    stats = jax.jit(nk.stats)(old, updates=updates)
    node, change = (jax.tree.map(lambda x: x.astype(np.float64), tree["layer"]["kernel"]) for tree in (old, updates))
    before = nk.Normalized(node.v - change.v, node.g - change.g)
    expected = ((weight_of(node) - weight_of(before)) ** 2).sum()
    assert column(stats, "layer.kernel", "update")[SQ] == pytest.approx(expected, rel=1e-5)


def test_stats_of_an_nnx_step():
    model = linear()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        before = nnx.clone(model)
        grads = nnx.grad(lambda model: (model(X) ** 2).sum())(model)
        optimizer.update(model, grads)
        return nk.stats(params=model, grads=grads, before=before)

    old = np.array(model.kernel[...], np.float64)
    stats = step(model, optimizer)
    new = np.array(model.kernel[...], np.float64)
    assert column(stats, "layer.kernel", "weight")[SQ] == pytest.approx((new**2).sum(), rel=1e-6)
    assert column(stats, "layer.kernel", "update")[SQ] == pytest.approx(((new - old) ** 2).sum(), rel=1e-4)
    assert column(stats, "layer.kernel", "grad") is None
    assert column(stats, "layer.kernel.g", "grad")[SQ] > 0


@pytest.mark.parametrize("given", ["stats", "trees"])
def test_a_recording(given, tmp_path):
    tree = jax.tree.map(jnp.asarray, parts())
    new, grads = moved(tree), jax.tree.map(jnp.ones_like, tree)
    updates = jax.tree.map(lambda a, b: a - b, new, tree)
    with nk.record(tmp_path / "a", params=tree, every=1, quiet=True) as recorder:
        if given == "stats":
            recorder(1, jax.jit(nk.stats)(new, grads, updates))
        else:
            recorder(1, params=new, grads=grads, updates=updates)
    run = normkit.load(recorder.path)
    weights = [weight_of(each["layer"]["kernel"]) for each in (tree, new)]
    assert run.series("layer.kernel") == pytest.approx([np.linalg.norm(w) for w in weights], rel=1e-6)
    change = np.linalg.norm(weights[1] - weights[0])
    assert run.series("layer.kernel", quantity="update")[1] == pytest.approx(change, rel=1e-4)
    assert np.isnan(run.series("layer.kernel", quantity="grad")).all()
    assert run.series("layer.kernel.g", quantity="grad")[1] == pytest.approx(3**0.5)
    assert run.series("layer.kernel.v")[0] == pytest.approx(np.linalg.norm(KERNEL), rel=1e-6)
