"""JAX arrays: sums inside jit and outside of it, under donation, for every dtype, without waiting."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import reference
from normkit.errors import ArgumentError
from normkit.norms import norm, stats
from normkit.ops import ops_of

jax = pytest.importorskip("jax", reason="jax is not installed")
import jax.numpy as jnp

from normkit.ops import jax as ops
from normkit.ops import jax_call

FLOATS = ("float32", "float16", "bfloat16")
OTHERS = ("bool", "int8", "uint8", "int16", "int32", "uint32", "int4", "float8_e4m3fn", "float8_e5m2")
EDGES = {
    "empty": [],
    "large": [1e20] * 4,
    "small": [1e-30] * 4,
    "subnormal": [1e-40] * 4,
    "minus zero": [-0.0, 0.0, 1.0],
    "nan": [np.nan, 1.0, np.inf],
    "infinities": [np.inf, -np.inf, 0.0],
}


@functools.cache
def jitted(pairs=False):
    return jax.jit(lambda arrays, partners: ops.traced_sums(arrays, partners if pairs else None))


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def by_xla(monkeypatch):
    """As on a device that the kernel does not reach."""
    monkeypatch.setattr(ops, "registered", lambda: False)


@pytest.fixture(params=["kernel", "xla"])
def path(request, monkeypatch):
    if request.param == "xla":
        by_xla(monkeypatch)
        monkeypatch.setattr(ops, "_jitted_sums", jax.jit(ops.traced_sums))
    return request.param


def test_the_kernel_is_reached_from_xla():
    assert jax_call.registered()


@pytest.mark.parametrize("dtype", [*FLOATS, *OTHERS])
def test_any_dtype(dtype):
    assert_sums_of_dtype(dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, "int32"])
def test_any_dtype_on_another_device(dtype, path):
    assert_sums_of_dtype(dtype)


def assert_sums_of_dtype(dtype):
    x = jnp.asarray(numbers(5, 7) * 20).astype(dtype)
    reference.assert_sums(ops.matrix_of_sums([x])[:, 0], np.asarray(x).astype(np.float64))


@pytest.mark.parametrize("values", EDGES.values(), ids=EDGES)
def test_edges(values):
    x = np.array(values, np.float32)
    reference.assert_sums(ops.matrix_of_sums([jnp.asarray(x)])[:, 0], x)


def test_half_precision_does_not_overflow():
    assert norm(jnp.full(70_000, 60_000, jnp.float16)) == 60_000 * 70_000**0.5


def test_float64_arrays_stay_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(numbers(1000) * 1e100)
    reference.assert_sums(ops.matrix_of_sums([x])[:, 0], numbers(1000) * 1e100)


def test_none_is_a_column_of_nan():
    matrix = ops.sums([None, jnp.ones(3), None]).wait()[0]
    assert np.isnan(matrix[:, [0, 2]]).all()
    assert matrix[0, 1] == 3
    assert ops.sums([]).wait()[0].shape == (6, 0)


@pytest.mark.parametrize("other", ["float32", "bfloat16", "int32"])
def test_dot_with_a_partner_of_any_dtype(other, path):
    x, y = jnp.asarray(numbers(40, 30), jnp.float32), jnp.asarray(numbers(40, 30, seed=1) * 9).astype(other)
    matrix = np.asarray(jax.jit(lambda x, y: ops.traced_sums([x, None, y], [y, x, None]))(x, y))
    reference.assert_sums(matrix[:, 0], np.asarray(x), np.asarray(y).astype(np.float64))
    assert np.isnan(matrix[:, 1]).all()
    reference.assert_sums(matrix[:, 2], np.asarray(y).astype(np.float64))
    assert np.isnan(matrix[6, 2])


def test_a_step_in_one_pass(path):
    old, new = numbers(20, 30).astype(np.float32), numbers(20, 30, seed=1).astype(np.float32)
    half = jnp.asarray(new).astype(jnp.bfloat16)
    weights, updates = jax.jit(ops.traced_step_sums)([jnp.asarray(new), half], [jnp.asarray(old)] * 2)
    for i, x in enumerate((new.astype(np.float64), np.asarray(half).astype(np.float64))):
        reference.assert_sums(np.asarray(weights)[:, i], x)
        reference.assert_sums(np.asarray(updates)[:, i], x - old, old)


def test_large_array_is_right_to_1e12():
    x = numbers(1_000_003).astype(np.float32) + 3
    reference.assert_sums(ops.matrix_of_sums([jnp.asarray(x)])[:, 0], x)


def test_rows_are_those_of_the_axes_kept():
    x = jnp.asarray(numbers(4, 5, 6), jnp.float32)
    rows = ops.sums_of_rows(ops.as_rows(x, (2, 0)))
    for k in range(24):
        reference.assert_sums(rows[:, k], np.asarray(x)[k % 4, :, k // 4])
    assert np.allclose(norm(x, "l1", per=1), np.abs(np.asarray(x)).sum((0, 2)), rtol=1e-6)


def test_norm_and_stats_take_jax_arrays():
    assert norm(jnp.array([3.0, -4.0])) == 5.0
    assert stats(jnp.array([3.0, -4.0, 0.0])).zeros == 1
    assert ops_of(jnp.ones(1)) is ops


# --- inside the user's function --------------------------------------------------------------------------------------

TRANSFORMED = {
    "jit": lambda f, x: jax.jit(f)(x),
    "no jit": lambda f, x: f(x),
    "scan": lambda f, x: jax.lax.scan(lambda c, _: (c, f(c)), x, None, length=2)[1][1],
    "cond": lambda f, x: jax.jit(lambda x: jax.lax.cond(x.sum() > 1e9, lambda x: f(x + 1), f, x))(x),
    "vmap": lambda f, x: jax.vmap(f)(jnp.stack([x, x]))[1],
    "aux of grad": lambda f, x: jax.jit(jax.value_and_grad(lambda x: (x.sum(), f(x)), has_aux=True))(x)[0][1],
    "checkpoint": lambda f, x: jax.jit(jax.checkpoint(f))(x),
}


@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
def test_float64_survives_transformations(transform):
    x = jnp.asarray(numbers(100), jnp.float32)
    found = transform(lambda x: ops.traced_sums([x]), x)
    assert found.dtype == np.float64
    reference.assert_sums(np.asarray(found)[:, 0], np.asarray(x))


def test_without_jit():
    with jax.disable_jit():
        reference.assert_sums(np.asarray(ops.traced_sums([jnp.arange(4.0)]))[:, 0], np.arange(4.0))
        reference.assert_sums(ops.matrix_of_sums([jnp.arange(4.0)])[:, 0], np.arange(4.0))


def test_guards_of_the_user_do_not_stop_it():
    x = jnp.array([np.nan, 1.0])
    rows = x.reshape(1, 2)
    with jax.debug_nans(True), jax.transfer_guard("disallow"):
        assert ops.matrix_of_sums([x])[5, 0] == 1
        assert norm(rows, "nonfinite", per=1).tolist() == [1, 0]


def test_no_compilation_per_call():
    before = ops._jitted_sums._cache_size()
    for _ in range(3):
        ops.sums([jnp.ones(7), jnp.ones((3, 2))]).wait()
    assert ops._jitted_sums._cache_size() - before <= 1


# --- while the device is at work -------------------------------------------------------------------------------------


@functools.partial(jax.jit, donate_argnums=0)
def slow_step(w, big):
    return w * 1.5 + jax.lax.fori_loop(0, 20, lambda _, b: jnp.tanh(b @ b), big)[:3, :3]


def test_sums_do_not_wait_and_are_right_under_donation():
    big, w = jnp.ones((700, 700)) * 1e-4, jnp.ones((3, 3))
    jax.block_until_ready(slow_step(w + 0, big))
    ops.sums([w]).wait()
    late = []
    for _ in range(5):
        w = slow_step(w, big)
        late.append(ops.sums([w]))
    assert not late[-1].ready()
    ratios = [pending.wait()[0][0, 0] for pending in late]
    expected, w = [], np.ones((3, 3))
    for _ in range(5):
        w = np.asarray(slow_step(jnp.asarray(w, jnp.float32), big))
        expected.append(w.sum(dtype=np.float64))
    assert ratios == pytest.approx(expected, rel=1e-12)


# --- what cannot be read ---------------------------------------------------------------------------------------------


def deleted():
    x = jnp.ones(3)
    x.delete()
    return x


WRONG = {
    "complex": (lambda: jnp.ones(2, jnp.complex64), "an array of complex64 was given; norms here are of real numbers"),
    "keys": (lambda: jax.random.key(0), r"an array of random keys was given \(key<fry>\), and keys have no norm"),
    "deleted": (deleted, r"an array of shape \(3,\) is deleted: it was donated to a jitted function"),
    "no numbers": (
        lambda: jax.ShapeDtypeStruct((3,), "float32"),
        r"an array of shape \(3,\) was given without its num",
    ),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("call", [lambda x: ops.sums([x]), ops.as_float64, norm], ids=["sums", "as_float64", "norm"])
def test_refusals(name, call):
    make, sentence = WRONG[name]
    with pytest.raises(ArgumentError, match=sentence):
        call(make())


def test_a_traced_array_is_refused_outside_of_stats():
    with pytest.raises(
        ArgumentError, match=r"an array of shape \(2,\) is being traced \('.*Tracer'\): inside jit take"
    ):
        jax.jit(norm)(jnp.ones(2))


def test_partners_of_another_shape_are_refused():
    with pytest.raises(ArgumentError, match="arrays of 3 and 2 entries were given as partners; expected equal shapes"):
        ops.traced_sums([jnp.ones(3)], [jnp.ones(2)])
