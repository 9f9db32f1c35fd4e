"""Every method of `normalize` on JAX arrays, eager and inside `jit`."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp

from normal_methods import FEW, Derivatives, Library, Values
from normkit.normalize import norm_except_dim
from normkit.ops import jax_math, numpy_math


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def jitted(function):
    """One compilation instead of one for each operation, and a short one."""
    return jax.jit(function, compiler_options=QUICKLY)


def grad(function, x):
    within = isinstance(x, jax.core.Tracer)
    return jax.grad(function)(x) if within else jitted(jax.grad(function))(x)


class TestJax(Values, Derivatives):
    """The formulas are tested elsewhere: here is what the fine operations of this library can spoil."""

    pers, dtypes = ((0, 2),), ("float32",)
    methods = FEW[1:]  # the first, p = 2, is what the bit-equal ones and `gradients` are of
    test_a_power_of_two_changes_no_bit = test_groups_do_not_see_each_other = test_zero_gives_zero = None
    test_the_second_derivative_is_that_of_the_gradient = test_compiled_it_is_the_same = None
    test_a_zero_group_beside_others = None  # its derivatives are taken
    library = Library(
        array=lambda x, dtype: jnp.asarray(np.asarray(x, np.float64)).astype(dtype),
        numpy=lambda x: np.asarray(x).astype(np.float64),
        dtype=lambda x: str(x.dtype),
        grad=grad,
        total=lambda x, other: (x * other).sum(),
        halves=("bfloat16",),
        run=jitted,
    )


def test_the_absolute_value_has_the_derivative_0_at_0():
    v = jnp.asarray([[3.0, 0.0, -1.0]])
    grad_v = jitted(jax.grad(lambda v: norm_except_dim(v, p=1).sum()))(v)
    assert grad_v.tolist() == [[1.0, 0.0, -1.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two_up_to_the_largest_number(dtype):
    most, least = np.finfo(dtype).max, np.finfo(dtype).smallest_normal
    x = np.array([most, most / 2, 3.0, 1.0, 0.3, least, 0.0, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(jitted(jax_math.power_of_two)(x), numpy_math.power_of_two(x))
