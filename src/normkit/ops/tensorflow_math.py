"""The fine operations on TensorFlow tensors, in a graph or not; what each means stands in `normkit.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Axes = tuple[int, ...]
EXPONENT = {tf.float32: (tf.int32, 0x7F800000), tf.float64: (tf.int64, 0x7FF0000000000000)}  # its bits in a number

absolute, sqrt, where, constant, matrix_product = tf.abs, tf.sqrt, tf.where, tf.stop_gradient, tf.linalg.matmul


def ones(x: Any) -> Any:
    return tf.ones_like(x)


def total(x: Any, axes: Axes) -> Any:
    return tf.reduce_sum(x, axis=axes, keepdims=True)


def largest(x: Any, axes: Axes) -> Any:
    return tf.maximum(tf.reduce_max(tf.abs(x), axis=axes, keepdims=True), tf.zeros([], x.dtype))  # nothing: 0, not -inf


def power(x: Any, exponent: float) -> Any:
    return x ** tf.constant(exponent, x.dtype)  # tf.cast would take it through float32


def power_of_two(x: Any) -> Any:
    """By the bits of the exponent: TensorFlow cannot take a number apart."""
    some = tf.where((x > 0) & tf.math.is_finite(x), x, tf.ones_like(x))
    whole, bits = EXPONENT[x.dtype]
    found = tf.bitcast(tf.bitwise.bitwise_and(tf.bitcast(some, whole), tf.constant(bits, whole)), x.dtype)
    return tf.where(found > 0, found, tf.ones_like(found))  # below the smallest normal number


def widened(x: Any) -> Any:
    return x if x.dtype in EXPONENT else tf.cast(x, tf.float32)


def widest(x: Any) -> Any:
    return tf.cast(x, tf.float64)


def as_type_of(x: Any, like: Any) -> Any:
    return tf.cast(x, like.dtype)


def reshaped(x: Any, shape: Axes) -> Any:
    return tf.reshape(x, shape)


def transposed(x: Any, order: Axes) -> Any:
    return tf.transpose(x, order)


def places(x: Any) -> Any:
    return tf.cast(tf.range(x.shape[0]), x.dtype)[:, None]


def svd(x: Any) -> tuple[Any, Any, Any]:
    sigma, u, v = tf.linalg.svd(x)
    return u, sigma, tf.linalg.matrix_transpose(v)


def either(flag: Any, change: Callable[[Any], Any], x: Any) -> Any:
    return tf.cond(flag, lambda: change(x), lambda: tf.identity(x))
