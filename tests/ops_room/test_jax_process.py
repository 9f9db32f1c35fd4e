"""Sums of JAX arrays on several devices, and at the end of a script: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import reference

pytest.importorskip("jax", reason="jax is not installed")

DEVICES = """
import contextlib
import numpy as np, jax, jax.numpy as jnp, reference
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from normkit.ops import jax as ops
assert len(jax.devices()) == 4
mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
specs = [("a", "b"), ("a",), (), (None, "b"), (("a", "b"),)]
cut = [jax.device_put(x, NamedSharding(mesh, P(*spec))) for spec in specs]
elsewhere = [jax.device_put(x, device) for device in jax.devices()[1:3]]
matrix = ops.matrix_of_sums([cut[0], elsewhere[0], *cut[1:], elsewhere[1], jnp.asarray(x)])
inside = np.asarray(jax.jit(lambda xs: ops.traced_sums(xs, xs))(cut))
rows = ops.sums_of_rows(cut[0])
for column in matrix.T:
    reference.assert_sums(column, x)
for column in inside.T:
    reference.assert_sums(column, x, x)
for k in range(8):
    reference.assert_sums(rows[:, k], x[k])
explicit = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)
told = [jax.device_put(x, NamedSharding(explicit, P(*spec))) for spec in specs]
for context in (contextlib.nullcontext(), jax.set_mesh(explicit)):
    with context:
        outside, inside = ops.matrix_of_sums(told), np.asarray(jax.jit(lambda xs: ops.traced_sums(xs, xs))(told))
        rows = ops.sums_of_rows(ops.as_rows(told[0], (1,)))
        step = np.concatenate(jax.jit(ops.traced_step_sums)(told, told[::-1]))
    for column in [*outside.T, *step[:6].T]:
        reference.assert_sums(column, x)
    for column in inside.T:
        reference.assert_sums(column, x, x)
    for k in range(6):
        reference.assert_sums(rows[:, k], x[:, k])
"""


ENDING = """
import jax, jax.numpy as jnp
from normkit.ops import jax as ops
def main():
    big = jnp.ones((500, 500)) * 1e-4
    step = jax.jit(lambda b: ops.traced_sums([jax.lax.fori_loop(0, 15, lambda _, b: jnp.tanh(b @ b), b)]))
    jax.block_until_ready(step(big))
    for _ in range(8):
        step(big)
main()
"""


@pytest.mark.parametrize(
    ("script", "devices"),
    [(DEVICES, 4), (ENDING, 1)],
    ids=["sharded arrays count once", "a script ends amid its steps"],
)
def test_in_a_process_of_its_own(script, devices):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(reference.__file__).parent),
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
