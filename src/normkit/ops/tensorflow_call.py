"""The compiled kernel as an operation of a TensorFlow graph, on tensors of the CPU, which it reads in place.

Not for a function that XLA compiles: it can call nothing of ours, and its own reductions take five times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from normkit.ops import cpu
from normkit.ops.arithmetic import usual_arithmetic

Tensor = Any


def kernel_sums(arrays: Sequence[Tensor]) -> Tensor:
    """[6][N] sums of every array."""
    return _called(6, cpu.sums, arrays)


def kernel_grad_sums(grads: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """[7][N]: the six sums of every gradient, and weight.gradient as the seventh."""
    return _called(7, cpu.grad_sums, grads, weights)


def kernel_step_sums(weights: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """[13][N]: the six sums of every weight, then those of weight - old with old.(weight - old) as the seventh."""
    return _called(13, cpu.step_sums, weights, old)


def compiled_by_xla(function: Any) -> Any:
    """`function` as one program of XLA's, compiled when first called with tensors of a shape."""
    return tf.function(function, jit_compile=True, reduce_retracing=True, autograph=False)


def graph_now() -> Any:
    """The graph that is being traced."""
    return tf.compat.v1.get_default_graph()


def is_slices(x: Any) -> bool:
    """Some rows of a tensor, as an embedding's gradient is?"""
    return isinstance(x, tf.IndexedSlices)


def _called(rows: int, kernel: Any, *lists: Sequence[Tensor]) -> Tensor:
    number = len(lists[0])
    if not number:
        return tf.zeros((rows, 0), tf.float64)

    def sums(*arrays: Any) -> Any:
        """An exception would break training; NaN says that there is nothing."""
        try:
            tables = _tables([arrays[i : i + number] for i in range(0, len(arrays), number)])
            with usual_arithmetic():
                result = kernel(*tables)
            return np.concatenate(result) if isinstance(result, tuple) else result
        except Exception:
            return np.full((rows, number), np.nan)

    return tf.ensure_shape(tf.numpy_function(sums, [x for each in lists for x in each], tf.float64), (rows, number))


def _tables(lists: Sequence[Sequence[Any]]) -> list[cpu.Table]:
    """Where the blocks lie; those that are read together in one of the kernel's formats, exact up to 53 bits."""
    rows = []
    for together in zip(*lists, strict=True):
        names = {x.dtype.name for x in together}
        readable = len(names) == 1 and names <= set(cpu.KINDS)
        rows.append([np.ascontiguousarray(x, None if readable else np.float64) for x in together])
    return [_table(blocks) for blocks in zip(*rows, strict=True)]


def _table(blocks: Sequence[Any]) -> cpu.Table:
    addresses = [x.ctypes.data if x.size else 1 for x in blocks]
    return cpu.Table(addresses, [x.size for x in blocks], [cpu.KINDS[x.dtype.name] for x in blocks], keep=blocks)
