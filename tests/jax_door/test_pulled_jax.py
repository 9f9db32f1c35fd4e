"""Terms, limits and decays on JAX arrays inside `jit`, in float64 and without it: many rows in each compilation."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp

import pulled
from jax_quickly import quickly  # noqa: F401  # for the whole file
from normal_methods import drawn
from normkit.constrain import max_norm, spectral_bound
from normkit.ops import jax_math
from normkit.penalize import l1, l2
from pulled_methods import EPSILON, SHAPE
from pulled_rows import DECAYS, LIMITS, TERMS, THRESHOLDS, leading, like

PER = KEPT = (0, 2)
WITHOUT = [LIMITS[0], LIMITS[3], LIMITS[4]]  # of the limits, those that are tried without float64


def named(rows):
    return pytest.mark.parametrize("index", range(len(rows)), ids=[row.name for row in rows])


def with_float64(given):
    return jax.enable_x64(True) if given else nullcontext()


def wide(x):
    return np.asarray(x).astype(np.float64)


# -- terms ----------------------------------------------------------------------------------------------------------


def of_terms(w, per, function):
    """`function` of each term, all in one compilation."""
    start, numbers = leading(w, per), jnp.asarray(like(w))
    make = lambda x: numbers if x.shape == numbers.shape else jnp.asarray(x)  # noqa: E731
    applied = [lambda x, row=row: row.apply(x, per, make, start) for row in TERMS]
    return jax.jit(lambda x: [function(term, x) for term in applied])(jnp.asarray(w))


@cache
def values_and_gradients():
    with jax.enable_x64(True):
        return of_terms(drawn(SHAPE), PER, lambda term, x: jax.value_and_grad(term)(x))


@cache
def derivatives_at_zero():
    """The first, and the second along a direction, at a zero tensor."""
    way = jnp.asarray(drawn((3, 4), seed=3))
    with jax.enable_x64(True):
        return of_terms(
            np.zeros((3, 4)),
            0,
            lambda term, x: (jax.grad(term)(x), jax.grad(lambda y: (jax.grad(term)(y) * way).sum())(x)),
        )


@named(TERMS)
def test_values_and_gradients_are_the_oracles(index):
    value, grad = values_and_gradients()[index]
    assert value.dtype == grad.dtype == np.float64
    assert value == pytest.approx(TERMS[index].exact(drawn(SHAPE), KEPT), rel=1e-12)
    np.testing.assert_allclose(grad, TERMS[index].gradient(drawn(SHAPE), KEPT), rtol=1e-9, atol=1e-10)


@pytest.mark.slow  # of trees in test_penalty_jax.py, too
@named(TERMS)
def test_at_zero_both_derivatives_are_finite(index):
    first, second = derivatives_at_zero()[index]
    np.testing.assert_array_equal(first, -like(first) if TERMS[index].name == "toward" else 0)
    assert np.isfinite(second).all()


def test_the_absolute_value_has_the_derivative_0_at_0():
    w = jnp.asarray([[3.0, 0.0, -1.0]])
    assert jax.jit(jax.grad(l1))(w).tolist() == [[1.0, 0.0, -1.0]]


def test_the_gradient_of_l2_is_rounded_once():
    w = jnp.asarray(drawn(), jnp.float32)
    found = jax.jit(jax.grad(lambda w: 0.1 * l2(w)))(w)
    np.testing.assert_array_equal(found, np.float32(0.1) * np.asarray(w))


# -- steps ----------------------------------------------------------------------------------------------------------


@cache
def all_of(rows, dtype, float64):
    """One compiled function for these rows."""
    make = lambda x: jnp.asarray(x).astype(dtype)  # noqa: E731
    made = jax.jit(lambda w: [row.apply(w, PER, make, 1.0) for row in rows])

    def call(w):
        with with_float64(float64):
            return made(jnp.asarray(w).astype(dtype))

    return call


STEPS = (*THRESHOLDS, *DECAYS)


@named(STEPS)
def test_steps_in_half_precision(index):
    found = all_of(STEPS, "bfloat16", float64=True)(drawn(SHAPE))[index]
    assert found.dtype == jnp.bfloat16
    expected = STEPS[index].exact(wide(jnp.asarray(drawn(SHAPE), jnp.bfloat16)), KEPT, 1.0)
    np.testing.assert_allclose(wide(found), expected, rtol=0, atol=4 * EPSILON["bfloat16"] * np.abs(expected).max())


CASES = {"float64": (tuple(LIMITS), True), "float32": (tuple(WITHOUT), False)}


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_limits(dtype):
    rows, float64 = CASES[dtype]
    call = all_of(rows, dtype, float64)
    for scale in (0.1, 1.0, 50.0):
        w = wide(jnp.asarray(scale * drawn(SHAPE), jnp.float32))
        for index, (row, found) in enumerate(zip(rows, call(w), strict=True)):
            slack = row.margin * 2 * EPSILON[dtype] * 4
            expected = row.exact(w, KEPT, 1.0)
            np.testing.assert_allclose(found, expected, rtol=0, atol=slack * np.abs(expected).max(), err_msg=row.name)
            assert row.within(row.measure(found, KEPT), slack).all(), row.name
            np.testing.assert_array_equal(call(found)[index], found, err_msg=row.name)
    bad = np.full(SHAPE, np.nan)
    for found in call(bad):
        np.testing.assert_array_equal(found, bad)


def test_lengths_are_taken_in_float64_where_there_is_one_just_here():
    """Whether a row is within its limit by one part in 1e9 can be told in float64 only."""
    row = np.array([[0.6, 0.8]], np.float32)
    limit = float(pulled.lengths(row, (0,))[0, 0]) * (1 - 1e-9)
    seen = jax.jit(lambda w: ((max_norm(w, limit) != w).any(), spectral_bound(w)))
    for float64 in (False, True, False):
        with with_float64(float64):
            changed, bound = seen(row)
        assert changed == float64
        assert bound.dtype == (np.float64 if float64 else np.float32)


def test_outside_jit_python_decides_what_is_worked_out():
    x = jnp.ones(3)
    assert jax_math.either(jnp.asarray(False), lambda x: 1 / 0, x) is x
    assert jax_math.either(jnp.asarray(True), lambda x: "changed", x) == "changed"
