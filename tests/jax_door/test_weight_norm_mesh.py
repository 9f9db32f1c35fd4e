"""Weights in two parts on a mesh of four devices, in a process of its own; lines that it prints are what is asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="jax is not installed")

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import normkit.jax as nk

numbers = np.arange(1.0, 33.0, dtype=np.float32).reshape(4, 8)
plain = nk.weight_norm({"kernel": numbers})

for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2, 2), ("in", "out"), axis_types=(kind, kind))
    tree = {"kernel": jax.device_put(numbers, NamedSharding(mesh, P("in", "out")))}
    parts = nk.weight_norm(tree)
    g, v = parts["kernel"].g, parts["kernel"].v
    assert g.sharding.is_equivalent_to(NamedSharding(mesh, P(None, "out")), 2), g.sharding
    assert v.sharding == tree["kernel"].sharding, v.sharding
    np.testing.assert_allclose(g, plain["kernel"].g, rtol=1e-6)
    @jax.jit
    def step(parts):
        loss = lambda parts: (nk.materialize(parts)["kernel"] ** 2).sum()
        grads = jax.grad(loss)(parts)
        new = jax.tree.map(lambda p, d: p - 0.1 * d, parts, grads)
        return new, nk.stats(params=new, grads=grads, before=parts), nk.materialize(parts)["kernel"]

    new, stats, back = step(parts)
    assert back.sharding.is_equivalent_to(tree["kernel"].sharding, 2), back.sharding
    np.testing.assert_allclose(back, numbers, rtol=1e-6)
    assert new["kernel"].g.sharding.is_equivalent_to(g.sharding, 2), new["kernel"].g.sharding
    np.testing.assert_allclose(new["kernel"].g, 0.8 * plain["kernel"].g, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(stats.weight)[2, 0], 0.64 * (numbers.astype(float) ** 2).sum(), rtol=1e-5)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
    assert nk.weight_norm(shapes)["kernel"].g.sharding.spec == P(None, "out")
    print(kind.name)
"""


def test_four_devices():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["Auto", "Explicit"], ran.stderr[-2000:]
