"""Penalties, decay and limits on a mesh of four devices, in a process of its own: the numbers of one device."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("optax", reason="optax is not installed")

SCRIPT = """
import jax, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import normkit.jax as nk

numbers = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)

def run(params):
    optimizer = nk.decay(optax.adam(0.1), 0.5, learning_rate=0.1, kind="toward", length="initial", per="out")
    optimizer = nk.proximal(optimizer, l1=0.1, group=0.01, learning_rate=0.1)
    optimizer = nk.constrain(nk.constrain(optimizer, max_norm=1.0), spectral_cap=1.0)

    @jax.jit
    def step(params, state):
        loss = lambda p: nk.penalty(p, l2=0.5, l1=0.1, group=0.1, orthogonality=0.1, spectral=0.1)
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return value, optax.apply_updates(params, updates), state

    _, params, state = step(params, jax.jit(optimizer.init)(params))
    value, params, _ = step(params, state)
    return value, jax.jit(optimizer.project)(params)["kernel"]

value, kernel = run({"kernel": numbers})
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2, 2), ("in", "out"), axis_types=(kind, kind))
    for spec in (P("in", "out"), P(None, "out")):
        one, other = run({"kernel": jax.device_put(numbers, NamedSharding(mesh, spec))})
        np.testing.assert_allclose(one, value, rtol=1e-6)
        np.testing.assert_allclose(other, kernel, rtol=1e-5, atol=1e-7)
        print(other.sharding.is_equivalent_to(NamedSharding(mesh, spec), 2))
"""


@pytest.mark.slow
def test_numbers_and_places_on_a_mesh():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["True"] * 4
