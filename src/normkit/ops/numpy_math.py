"""The fine operations on NumPy arrays; what each means stands in `normkit.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
Axes = tuple[int, ...]

absolute, sqrt, where = np.abs, np.sqrt, np.where


def constant(x: Array) -> Array:
    return x


def ones(x: Array) -> Array:
    return np.ones_like(x)


def total(x: Array, axes: Axes) -> Array:
    return np.sum(x, axis=axes, keepdims=True)


def largest(x: Array, axes: Axes) -> Array:
    return np.max(np.abs(x), axis=axes, keepdims=True, initial=0.0)


def power(x: Array, exponent: float) -> Array:
    return x**exponent


def power_of_two(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        usual = np.isfinite(x) & (x > 0)
        some = np.where(usual, x, np.ones_like(x))
        mantissa, _ = np.frexp(some)
        return some / (2 * mantissa)


def widened(x: Array) -> Array:
    return x if x.dtype.itemsize > 2 else x.astype(np.float32)  # of any byte order, and longdouble too


def widest(x: Array) -> Array:
    return x if x.dtype.itemsize > 8 else x.astype(np.float64, copy=False)


def as_type_of(x: Array, like: Array) -> Array:
    return x.astype(like.dtype, copy=False)


def matrix_product(a: Array, b: Array) -> Array:
    return a @ b


def reshaped(x: Array, shape: Axes) -> Array:
    return np.reshape(x, shape)


def transposed(x: Array, order: Axes) -> Array:
    return np.transpose(x, order)


def places(x: Array) -> Array:
    return np.arange(len(x), dtype=x.dtype)[:, None]


def svd(x: Array) -> tuple[Array, Array, Array]:
    return np.linalg.svd(x, full_matrices=False)


def either(flag: Array, change: Callable[[Array], Array], x: Array) -> Array:
    return change(x) if flag else x
