"""Weights on a mesh whose axes are Explicit, and stats where jax shows a function a part of them, or many at once."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import normkit
import reference
from normkit.errors import ArgumentError

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import normkit.jax as nk
from normkit.ops import jax as ops

NUMBERS = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
MESH = jax.make_mesh((1,), ("m",), axis_types=(AxisType.Explicit,))  # one device is enough for jax to ask


@pytest.fixture(params=[False, True], ids=["no mesh is set", "the mesh is set"])
def tree(request):
    with jax.set_mesh(MESH) if request.param else contextlib.nullcontext():
        yield {
            "b": jax.device_put(NUMBERS[0], NamedSharding(MESH, P("m"))),
            "w": jax.device_put(NUMBERS, NamedSharding(MESH, P("m", None))),
        }


def l2(x):
    return reference.norm_of(x, "l2")


def test_norms(tree):
    assert nk.norms(tree)["w"] == pytest.approx(l2(NUMBERS), rel=1e-12)
    assert normkit.norm(tree["w"]) == pytest.approx(l2(NUMBERS), rel=1e-12)
    for per in (0, 1):
        expected = [l2(row) for row in np.moveaxis(NUMBERS, per, 0)]
        assert nk.norms(tree, "l2", per, select="kernel")["w"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("path", ["kernel", "xla"])
def test_stats_inside_jit(tree, path, monkeypatch):
    if path == "xla":
        monkeypatch.setattr(ops, "registered", lambda: False)

    @jax.jit
    def step(tree):
        return nk.stats(tree, tree, before=jax.tree.map(lambda x: x / 2, tree), per={"w": 0})

    stats = step(tree)
    expected = [l2(NUMBERS[0]) ** 2, l2(NUMBERS) ** 2, *[l2(row) ** 2 for row in NUMBERS]]
    assert np.asarray(stats.weight)[2] == pytest.approx(np.array(expected), rel=1e-12)
    assert np.asarray(stats.update)[6] == pytest.approx(np.array(expected) / 4, rel=1e-12)
    assert np.asarray(stats.grad)[6] == pytest.approx(np.array(expected) / 2, rel=1e-12)


def test_recorder(tree, tmp_path):
    with nk.record(tmp_path / "a", params=tree, every=1, quiet=True, per={"w": 0}) as recorder:
        recorder(1, params=tree, grads=tree)
    run = normkit.load(recorder.path)
    assert run.series("w", "l2", "grad")[1] == pytest.approx(l2(NUMBERS), rel=1e-12)
    assert run.rows("w", per=0)[1] == pytest.approx([l2(row) for row in NUMBERS], rel=1e-12)


def by_shards(checked, spec):
    take = jax.shard_map(lambda w: nk.stats({"w": w}), mesh=MESH, in_specs=spec, out_specs=P(), check_vma=checked)
    return jax.jit(take)(jax.device_put(NUMBERS, NamedSharding(MESH, spec)))


@pytest.mark.parametrize(("checked", "spec"), [(True, P("m")), (False, P("m")), (False, P())])
def test_one_part_is_refused(checked, spec):
    with pytest.raises(
        ArgumentError,
        match=r"^params: w of shape \(4, 6\) may be one device's part, inside shard_map .* over 'm': take",
    ):
        by_shards(checked, spec)


def test_weights_that_are_known_to_be_whole_are_taken():
    assert np.asarray(by_shards(True, P()).weight)[2, 0] == pytest.approx(l2(NUMBERS) ** 2, rel=1e-12)


def test_many_at_once_are_refused():
    with pytest.raises(
        ArgumentError,
        match=r"^params: w of shape \(6,\) is one of many that jax\.vmap takes at once: take the stats out",
    ):
        jax.jit(jax.vmap(lambda w: nk.stats({"w": w})))(jnp.asarray(NUMBERS))
