"""The fine operations on JAX arrays, traced or not; what each means stands in `normkit.ops`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Axes = tuple[int, ...]
EXPONENT = {"float32": (jnp.int32, 0x7F800000), "float64": (jnp.int64, 0x7FF0000000000000)}  # its bits in a number

sqrt, where, constant = jnp.sqrt, jnp.where, jax.lax.stop_gradient


def absolute(x: Array) -> Array:
    """With the derivative 0 at 0, where jax has 1."""
    return x * constant(jnp.sign(x))


def ones(x: Array) -> Array:
    return jnp.ones_like(x)


def total(x: Array, axes: Axes) -> Array:
    return jnp.sum(x, axis=axes, keepdims=True)


def largest(x: Array, axes: Axes) -> Array:
    return jnp.max(absolute(x), axis=axes, keepdims=True, initial=0.0)


def power(x: Array, exponent: float) -> Array:
    return x**exponent


def power_of_two(x: Array) -> Array:
    some = jnp.where((x > 0) & (x < jnp.inf), x, jnp.ones_like(x))
    whole, bits = EXPONENT[x.dtype.name]  # jnp.frexp gives 0 above 2^127
    found = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(some, whole) & jnp.asarray(bits, whole), x.dtype)
    return jnp.where(found > 0, found, jnp.ones_like(found))  # below the smallest normal number


def widened(x: Array) -> Array:
    return x if x.dtype in (jnp.float32, jnp.float64) else x.astype(jnp.float32)


def widest(x: Array) -> Array:
    return x.astype(jnp.float64 if jax.config.jax_enable_x64 else jnp.float32)


def as_type_of(x: Array, like: Array) -> Array:
    return x.astype(like.dtype)


def matrix_product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")  # else in fewer digits than float32 has, on devices other than a CPU


def reshaped(x: Array, shape: Axes) -> Array:
    return jnp.reshape(x, shape)


def transposed(x: Array, order: Axes) -> Array:
    return jnp.transpose(x, order)


def places(x: Array) -> Array:
    return jnp.arange(len(x), dtype=x.dtype)[:, None]


def svd(x: Array) -> tuple[Array, Array, Array]:
    u, sigma, v = jnp.linalg.svd(x, full_matrices=False)
    return u, sigma, v


def either(flag: Array, change: Callable[[Array], Array], x: Array) -> Array:
    if isinstance(flag, jax.core.Tracer):
        return jax.lax.cond(flag, change, lambda x: x, x)
    return change(x) if flag else x  # jax.lax.cond would compile both anew at each call
