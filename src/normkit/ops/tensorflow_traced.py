"""The same sums as TensorFlow operations: inside a `tf.function`, or where the memory is a device's.

Everything is widened to float64 first, so nothing overflows and sums are right to 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
import tensorflow as tf

Tensor = Any

STRIP = 2**14  # entries that are added at a time, each to its own partial sum; to one number they wait for each other
LONG = 4 * STRIP
MAX = 3  # the row of sums that merges by maximum
HIDDEN = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # what an entry that is not stored adds to each row: one zero


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def traced_sums(arrays: Sequence[Any], partners: Sequence[Any] | None = None) -> Tensor:
    """[6][N] float64 sums of every array; with `partners` a seventh row, the sums of array * partner.

    For the inside of a `tf.function`, also one with `jit_compile=True`. Arrays are tensors, variables and
    `tf.IndexedSlices`; a None among them, or a missing partner, is a column of NaN, or a NaN in the seventh row.
    """
    others = [None] * len(arrays) if partners is None else list(partners)
    rows = 6 if partners is None else 7
    columns = [_column(x, other, rows) for x, other in zip(arrays, others, strict=True)]
    return tf.stack(columns, axis=1) if columns else tf.zeros((rows, 0), tf.float64)


def summed_rows(slices: tf.IndexedSlices) -> Tensor:
    """The rows of the dense tensor that `slices` stands for, those of equal index added; then rows of zeros.

    As many rows as `slices` holds, so that the shape is known when a function is compiled.
    """
    values, indices = _values(slices), slices.indices
    order = tf.argsort(indices)
    sorted_indices = tf.gather(indices, order)
    is_new = tf.cast(sorted_indices[1:] != sorted_indices[:-1], tf.int32)
    place = tf.concat([tf.zeros_like(order[:1]), tf.cumsum(is_new)], axis=0)
    return tf.math.unsorted_segment_sum(tf.gather(values, order), place, tf.shape(indices)[0])


def entries_of(slices: tf.IndexedSlices, like: Any = None) -> Tensor | None:
    """How many entries the dense tensor has, as float64; None where neither `slices` nor `like` says so."""
    shape = slices.dense_shape if like is None else tf.shape(like, out_type=tf.int64)
    return None if shape is None else tf.reduce_prod(tf.cast(shape, tf.float64))


def traced_steps(weights: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """[13][N]: the six sums of every weight, then those of weight - old with old * (weight - old) as the seventh."""
    before = [tf.cast(t, tf.float64) for t in old]
    steps = [tf.cast(w, tf.float64) - t for w, t in zip(weights, before, strict=True)]
    return tf.concat([traced_sums(weights), traced_sums(steps, before)], axis=0)


@cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """One of these for tensors of a device: one call, one small result."""
    whole: Callable[..., Tensor] = tf.function(function)
    return whole


def _column(x: Any, partner: Any, rows: int) -> Tensor:
    if x is None:
        return tf.fill((rows,), tf.constant(np.nan, tf.float64))
    if isinstance(x, tf.IndexedSlices):
        column, dot = _sums_of_slices(x, partner), dot_of_slices(x, partner)
        return column if rows == 6 else tf.concat([column, [dot]], axis=0)
    column = _sums(tf.convert_to_tensor(x), None if partner is None else tf.convert_to_tensor(partner))
    return column if column.shape[0] == rows else tf.concat([column, [_nan()]], axis=0)


def _sums(x: Tensor, partner: Tensor | None = None) -> Tensor:
    """[6], or [7] with a partner. Strips of a long tensor are added entry by entry, then the entries of the result."""
    lists = [tf.reshape(t, [-1]) for t in (x, partner) if t is not None]
    length = prod(x.shape) if x.shape.is_fully_defined() else 0
    if length < LONG:
        return _finished(_reduced(_entries(*lists)))
    whole = length - length % STRIP
    strips = [tf.reshape(t[:whole], (-1, STRIP)) for t in lists]

    def add(i: Tensor, *totals: Tensor) -> tuple[Tensor, ...]:
        return (i + 1, *_merged(totals, _entries(*(each[i] for each in strips))))

    nothing = [tf.zeros((STRIP,), tf.float64)] * (5 + len(lists))
    _, *totals = tf.while_loop(lambda i, *_: i < whole // STRIP, add, (tf.constant(0), *nothing))
    if whole == length:
        return _finished(_reduced(totals))
    rest = _entries(*(t[whole:] for t in lists))
    return _finished(_merged(_reduced(totals), _reduced(rest)))


def _entries(x: Tensor, partner: Tensor | None = None) -> list[Tensor]:
    """What each entry adds to each row of sums."""
    w = tf.cast(x, tf.float64)
    absolute = tf.abs(w)
    rows = [w, absolute, w * w, absolute, _ones(tf.equal(w, 0.0)), _ones(~tf.math.is_finite(w))]
    return rows if partner is None else [*rows, w * tf.cast(partner, tf.float64)]


def _ones(said: Tensor) -> Tensor:
    return tf.cast(said, tf.float64)


def _merged(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    return [tf.maximum(x, y) if row == MAX else x + y for row, (x, y) in enumerate(zip(a, b, strict=True))]


def _reduced(entries: Sequence[Tensor]) -> list[Tensor]:
    return [tf.reduce_max(row) if place == MAX else tf.reduce_sum(row) for place, row in enumerate(entries)]


def _finished(totals: list[Tensor]) -> Tensor:
    largest = tf.maximum(totals[MAX], tf.zeros_like(totals[MAX]))  # that of nothing is minus infinity
    totals[MAX] = tf.where(tf.math.is_nan(totals[1]), totals[1], largest)  # a compiled maximum may pass over a NaN
    return tf.stack(totals)


def _sums_of_slices(slices: tf.IndexedSlices, like: Any) -> Tensor:
    rows = summed_rows(slices)
    entries = entries_of(slices, like)
    if entries is None:
        return _sums(rows)
    hidden = entries - tf.cast(tf.size(rows), tf.float64)  # below zero where some of the rows are no rows of it
    return _sums(rows) + tf.constant(HIDDEN, tf.float64) * hidden


def dot_of_slices(slices: tf.IndexedSlices, partner: Any) -> Tensor:
    if partner is None:
        return _nan()
    beside = tf.gather(tf.convert_to_tensor(partner), slices.indices)
    return tf.reduce_sum(_values(slices) * tf.cast(beside, tf.float64))


def _values(slices: tf.IndexedSlices) -> Tensor:
    return tf.cast(slices.values, tf.float64)


def _nan() -> Tensor:
    return tf.constant(np.nan, tf.float64)
