"""TensorFlow tensors and variables: CPU memory goes to the kernel in place, other devices are reduced where they are.

A variable is read by the bare operation, which shares its buffer: as long as the result is held, an assignment writes
to other memory. `.numpy()` copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import tensorflow as tf

from normkit.errors import ArgumentError
from normkit.ops import cpu
from normkit.ops.tensorflow_traced import (
    compiled,
    dot_of_slices,
    entries_of,
    summed_rows,
    traced_steps,
    traced_sums,
)
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

__all__ = [
    "Cache",
    "Pending",
    "as_float64",
    "as_rows",
    "grad_sums",
    "matrix_of_sums",
    "read",
    "refuse_unreadable",
    "step_sums",
    "sums",
    "sums_of_rows",
    "traced_sums",
]

Tensor = Any

_ZEROS = SUMS.index("zeros")
_PLAIN = frozenset({tf.float64, tf.float32, tf.float16, tf.bfloat16})
_KINDS = {np.dtype(dtype.as_numpy_dtype): cpu.KINDS[dtype.name] for dtype in _PLAIN}
_NO_NUMBERS = (tf.string, tf.resource, tf.variant)


class Pending:
    """Matrices that are ready, or on their way from a device; `rows` says how the rows of sums are dealt out.

    TensorFlow does not tell when a device is done: the first question is answered no, and by the next record it is.
    """

    def __init__(self, matrix: Matrix, rows: tuple[int, ...], sent: Sequence[tuple[list[int], Tensor]] = ()) -> None:
        self._matrix = matrix
        self._rows = rows
        self._sent = list(sent)
        self._asked = False

    def ready(self) -> bool:
        """Whether `wait` would return at once, as far as can be known."""
        asked, self._asked = self._asked, True
        return asked or not self._sent

    def wait(self) -> tuple[Matrix, ...]:
        """The matrices, each [sums][N]."""
        while self._sent:
            columns, packed = self._sent.pop()
            self._matrix[:, columns] = packed.numpy()
        first = self._rows[0]
        return (self._matrix,) if len(self._rows) == 1 else (self._matrix[:first], self._matrix[first:])


class Cache:
    """Remembers how the work on a list of tensors is cut up, from one call to the next; one per list and function."""

    def __init__(self) -> None:
        self.tables: list[cpu.Table] = []


# --- the three passes ------------------------------------------------------------------------------------------------


def sums(arrays: Sequence[Any], *, cache: Cache | None = None) -> Pending:
    """The six sums of every array; a column of NaN for None.

    Shapes: tensors, variables (Keras' own too) and `tf.IndexedSlices` of any shape and dtype but complex.
    Raises: ArgumentError for complex numbers, and for a symbolic tensor, which has no values.
    """
    slices = {i: x for i, x in enumerate(arrays) if isinstance(x, tf.IndexedSlices)}
    dense = [None if i in slices else read(x) for i, x in enumerate(arrays)]
    pending = _passes(cpu.sums, traced_sums, (6,), [dense], cache)
    for i, each in slices.items():
        pending._matrix[:, i] = _column_of_slices(each)
    return pending


def grad_sums(grads: Sequence[Any], weights: Sequence[Any], *, cache: Cache | None = None) -> Pending:
    """The six sums of every gradient, and weight.gradient as the seventh; a column of NaN for None."""
    slices = {i: x for i, x in enumerate(grads) if isinstance(x, tf.IndexedSlices)}
    dense = [None if i in slices else read(x) for i, x in enumerate(grads)]
    beside = [None if g is None else read(w) for g, w in zip(dense, weights, strict=True)]
    pending = _passes(cpu.grad_sums, traced_sums, (7,), [dense, beside], cache)
    for i, each in slices.items():
        pending._matrix[:6, i] = _column_of_slices(each, like=read(weights[i]))
        pending._matrix[6, i] = float(dot_of_slices(each, read(weights[i])))
    return pending


def step_sums(weights: Sequence[Any], old: Sequence[Any], *, cache: Cache | None = None) -> Pending:
    """The six sums of every weight; those of weight - old, with old.(weight - old)."""
    lists = [[read(x) for x in each] for each in (weights, old)]
    return _passes(cpu.step_sums, traced_steps, (6, 7), lists, cache)


def matrix_of_sums(arrays: Sequence[Any]) -> Matrix:
    """[6][N] sums, waited for."""
    return sums(arrays).wait()[0]


def sums_of_rows(rows: Tensor) -> Matrix:
    """[6][R] sums of the rows of a 2-D tensor."""
    block = read(rows)
    if not _here(block):
        return matrix_of_sums(tf.unstack(block))
    memory = _memory(block)
    count, length = memory.shape
    addresses = _address(memory) + np.arange(count) * length * memory.itemsize
    kinds = np.full(count, _KINDS[memory.dtype])
    return cpu.sums(cpu.Table(addresses, np.full(count, length), kinds, keep=(block, memory)))


def as_rows(x: Any, kept: tuple[int, ...]) -> Tensor:
    """Kept axes to the front in their order and flattened, the rest flattened: [R][..]."""
    x = _dense(x) if isinstance(x, tf.IndexedSlices) else read(x)
    kept = tuple(axis % x.ndim for axis in kept)
    front = tf.transpose(x, [*kept, *(axis for axis in range(x.ndim) if axis not in kept)])
    count = int(np.prod([x.shape[axis] for axis in kept], dtype=np.int64))
    return tf.reshape(front, (count, int(tf.size(x)) // count if count else 0))


def as_float64(x: Any) -> NDArray[np.float64]:
    """The numbers, in NumPy."""
    x = _dense(x) if isinstance(x, tf.IndexedSlices) else read(x)
    return cast("NDArray[np.float64]", tf.cast(x, tf.float64).numpy())


def _dense(slices: tf.IndexedSlices) -> Tensor:
    """The tensor that `slices` stands for. Raises: ArgumentError where they do not say how many rows it has."""
    if slices.dense_shape is None:
        raise ArgumentError(
            f"IndexedSlices with values of shape {slices.values.shape} and no dense_shape were given, which do not "
            "tell how many rows there are; give them one"
        )
    return tf.convert_to_tensor(slices)


def read(x: Any) -> Tensor:
    """What `x` holds now, as a tensor that shares its memory; None is None.

    Raises: ArgumentError for what has no real numbers, or no values.
    """
    if x is None:
        return None
    held = x.value if not isinstance(x, tf.Variable) and isinstance(getattr(x, "value", None), tf.Variable) else x
    tensor = _read_in_place(held) if isinstance(held, tf.Variable) else held
    if not isinstance(tensor, tf.Tensor) or tensor.dtype not in _PLAIN or tf.is_symbolic_tensor(tensor):
        refuse_unreadable(x)
    return tf.convert_to_tensor(tensor)


def _read_in_place(variable: tf.Variable) -> Tensor:
    """By the bare operation, which takes a quarter of `read_value()`'s time."""
    try:
        return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    except (AttributeError, TypeError, ValueError):  # one of several replicas'
        return variable.read_value()


# --- dealing tensors out to the kernel and to devices ----------------------------------------------------------------


def _passes(
    by_cpu: Callable[..., Any],
    traced: Callable[..., Tensor],
    rows: tuple[int, ...],
    lists: Sequence[Sequence[Tensor | None]],
    cache: Cache | None,
) -> Pending:
    away = [i for i, first in enumerate(lists[0]) if first is not None and not _here(first)]
    kept = [[None if t is None or i in away else _memory(t) for i, t in enumerate(tensors)] for tensors in lists]
    if len(kept) > 1:
        kept = [list(each) for each in zip(*(_alike(*pair) for pair in zip(*kept, strict=True)), strict=True)]
    result = by_cpu(*_tables(kept, cache))  # `lists` and `kept` keep the addresses good until here
    matrix = np.concatenate(result) if isinstance(result, tuple) else result
    if not away:
        return Pending(matrix, rows)
    return Pending(matrix, rows, [(away, compiled(traced)(*([tensors[i] for i in away] for tensors in lists)))])


def _tables(kept: Sequence[Sequence[NDArray[Any] | None]], cache: Cache | None) -> list[cpu.Table]:
    """Where the memory lies; the plan of the work is kept where sizes and formats are what they were."""
    tables = [_table(each) for each in kept]
    if cache is None:
        return tables
    if len(cache.tables) == len(tables) and all(map(_same, tables, cache.tables)):
        tables = [known.moved(table.addresses) for table, known in zip(tables, cache.tables, strict=True)]
    cache.tables = tables
    return tables


def _table(memory: Sequence[NDArray[Any] | None]) -> cpu.Table:
    addresses = [0 if x is None else _address(x) for x in memory]
    counts = [0 if x is None else x.size for x in memory]
    kinds = [0 if x is None else _KINDS[x.dtype] for x in memory]
    return cpu.Table(addresses, counts, kinds)


def _same(a: cpu.Table, b: cpu.Table) -> bool:
    return np.array_equal(a.counts, b.counts) and np.array_equal(a.kinds, b.kinds)


def _alike(a: NDArray[Any] | None, b: NDArray[Any] | None) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Both in one format, as the kernel reads them together."""
    if a is None or b is None or a.dtype == b.dtype:
        return a, b
    return a.astype(np.float64), b.astype(np.float64)


def _memory(t: Tensor) -> NDArray[Any]:
    """The tensor's own memory; a conversion where the kernel cannot read its format, exact up to 53 bits."""
    memory = np.asarray(t)
    if memory.dtype not in _KINDS:
        return memory.astype(np.float64)
    return memory if memory.flags.c_contiguous and memory.flags.aligned else np.array(memory, order="C")


def _address(x: NDArray[Any]) -> int:
    return x.ctypes.data if x.size else 1


def _here(t: Tensor) -> bool:
    return t.device.rpartition("device:")[2].startswith("CPU") or not t.device


def _column_of_slices(slices: tf.IndexedSlices, like: Tensor | None = None) -> NDArray[np.float64]:
    """[6]: the sums of the dense tensor that `slices` stands for, rows of equal index added. `like` knows its shape."""
    refuse_unreadable(slices)
    rows = summed_rows(slices)
    column = _passes(cpu.sums, traced_sums, (6,), [[rows]], None).wait()[0][:, 0]
    entries = entries_of(slices, like)
    column[_ZEROS] += 0.0 if entries is None else float(entries) - float(tf.size(rows))
    return column


def refuse_unreadable(x: Any) -> None:
    """Raises: ArgumentError for what the sums of cannot be taken."""
    dtype, shape = getattr(x, "dtype", None), getattr(x, "shape", None)
    if isinstance(x, tf.RaggedTensor | tf.SparseTensor):
        advice = "x.flat_values" if isinstance(x, tf.RaggedTensor) else "tf.sparse.to_dense(x)"
        raise ArgumentError(f"a {type(x).__name__} of shape {shape} was given; pass {advice}")
    values = x.values if isinstance(x, tf.IndexedSlices) else x
    if tf.is_symbolic_tensor(values):
        raise ArgumentError(
            f"a symbolic tensor of shape {shape} was given, which has no values: it belongs to a tf.function; "
            "take norms outside of it"
        )
    kind = None if dtype is None else tf.as_dtype(dtype)
    if kind is not None and kind.is_complex:
        raise ArgumentError(
            f"a tensor of {kind.name} of shape {shape} was given; norms here are of real numbers: pass tf.abs(x), "
            "or both parts"
        )
    if kind in _NO_NUMBERS or (kind is not None and kind.is_quantized):
        raise ArgumentError(f"a tensor of {kind.name} of shape {shape} was given; a tensor of numbers was expected")
