"""torch tensors: CPU memory goes to the kernel in place, other devices are reduced where they are.

Nothing here waits for a device: results come as a `Pending`, whose `wait()` gives the matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from normkit.ops import cpu, torch_columns
from normkit.ops.torch_columns import KINDS, Column, fit, readable
from normkit.ops.torch_device import Parcel, device_grad_sums, device_step_sums, device_sums
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

_ZEROS = SUMS.index("zeros")
_BYTES = attrgetter("nbytes")

Sent = tuple[slice, list[int], Parcel]  # rows and columns of a matrix that are on their way


class Pending:
    """Matrices that are ready, or on their way from a device.

    `rows` says how the rows of sums are dealt out: (6,) for weights, (7,) for gradients, (6, 7) for a step.
    """

    def __init__(
        self, matrix: Matrix, rows: tuple[int, ...], sent: Sequence[Sent] = (), hidden: Matrix | None = None
    ) -> None:
        self._matrix = matrix
        self._rows = rows
        self._sent = list(sent)
        self._hidden_zeros = hidden

    def ready(self) -> bool:
        """Whether `wait` would return at once."""
        return all(parcel.ready() for _, _, parcel in self._sent)

    def wait(self) -> tuple[Matrix, ...]:
        """The matrices, each [sums][N]."""
        while self._sent:
            rows, columns, parcel = self._sent.pop()
            self._matrix[rows, columns] = parcel.wait()
        if self._hidden_zeros is not None:
            self._matrix[_ZEROS] += self._hidden_zeros
            self._hidden_zeros = None
        first = self._rows[0]
        return (self._matrix,) if len(self._rows) == 1 else (self._matrix[:first], self._matrix[first:])


class Cache:
    """Remembers where tensors lie from one call to the next; one per list of tensors and per function.

    Each call compares every tensor's address and bytes with what is remembered, and its dtype where another one has as
    many bytes.
    """

    def __init__(self) -> None:
        self.places: list[list[int]] = []
        self.sizes: list[list[int | None]] = []
        self.halves: list[list[tuple[int, torch.dtype]]] = []
        self.forms: list[list[object]] = []
        self.tables: list[cpu.Table] = []


# --- the three passes ------------------------------------------------------------------------------------------------


def sums(tensors: Sequence[Tensor | None], cache: Cache | None = None) -> Pending:
    """The six sums of every tensor; a column of NaN for None."""
    return _passes(cpu.sums, device_sums, (6,), [tensors], cache)


def grad_sums(
    grads: Sequence[Tensor | None],
    weights: Sequence[Tensor],
    copies: Sequence[Tensor] | None = None,
    cache: Cache | None = None,
) -> Pending:
    """The six sums of every gradient, and weight.gradient; every weight is written to its copy in the same pass."""
    lists = [grads, weights] if copies is None else [grads, weights, copies]
    return _passes(cpu.grad_sums, device_grad_sums, (7,), lists, cache)


def step_sums(weights: Sequence[Tensor], copies: Sequence[Tensor | None], cache: Cache | None = None) -> Pending:
    """The six sums of every weight; those of weight - copy, with copy.(weight - copy)."""
    return _passes(cpu.step_sums, device_step_sums, (6, 7), [weights, copies], cache)


# --- three passes that write, on contiguous tensors in the CPU's memory -----------------------------------------------


def keep(weights: Sequence[Tensor], copies: Sequence[Tensor], cache: Cache) -> None:
    """Copy every weight."""
    cpu.keep(*_tables([weights, copies], cache))


def scale(weights: Sequence[Tensor], factors: Sequence[float], cache: Cache) -> None:
    """w <- factor w, one factor for every tensor; float32 and float64 only."""
    cpu.scale(_tables([weights], cache)[0], factors)


def take_cautiously(weights: Sequence[Tensor], olds: Sequence[Tensor], taken: float, cache: Cache) -> None:
    """w <- w - s old where (w - old) old <= 0, entry by entry; float32 and float64 only."""
    w, old = _tables([weights, olds], cache)
    cpu.take_cautiously(w, old, taken)


def _tables(lists: Sequence[Sequence[Tensor]], cache: Cache) -> list[cpu.Table]:
    tables = _remembered(lists, cache) if cache.tables else None
    if tables is None:
        tables = [_table(tensors) for tensors in lists]
        _remember(lists, tables, cache)
    return tables


def matrix_of_sums(tensors: Sequence[Tensor]) -> Matrix:
    """[6][N] sums, waited for."""
    return sums(tensors).wait()[0]


def sums_of_rows(rows: Tensor) -> Matrix:
    """[6][R] sums of the rows of a 2-D tensor."""
    with torch.no_grad():
        block = readable(rows)
        if torch_columns.on_device(block):
            return matrix_of_sums(list(block))
        block = block.contiguous()
        count, length = block.shape
        addresses = _address(block) + np.arange(count) * length * block.element_size()
        kinds = np.full(count, KINDS[block.dtype])
        return cpu.sums(cpu.Table(addresses, np.full(count, length), kinds, keep=block))


def as_rows(x: Tensor, kept: tuple[int, ...]) -> Tensor:
    """Kept axes to the front in their order and flattened, the rest flattened: [R][..]."""
    front = torch.movedim(x.detach(), kept, tuple(range(len(kept))))
    count = int(np.prod([x.shape[axis] for axis in kept], dtype=np.int64))
    return front.reshape(count, x.numel() // count if count else 0)


def as_float64(x: Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        return cast("NDArray[np.float64]", readable(x).to("cpu", torch.float64).numpy())


# --- dealing tensors out to the kernel and to devices ----------------------------------------------------------------


def _passes(
    by_cpu: Callable[..., Any],
    by_device: Callable[..., Tensor],
    rows: tuple[int, ...],
    lists: Sequence[Sequence[Tensor | None]],
    cache: Cache | None,
) -> Pending:
    with torch.no_grad():
        tables = _remembered(lists, cache) if cache is not None and cache.tables else None
        if tables is not None:
            return Pending(_stacked(by_cpu(*tables)), rows)
        columns = [fit(group) for group in zip(*lists, strict=True)]
        here = [i for i, column in enumerate(columns) if not column.away]
        tables = [_table([columns[i].tensors[k] for i in here]) for k in range(len(lists))]
        if len(here) == len(columns) and all(column.untouched for column in columns):
            _remember(lists, tables, cache)
            return Pending(_stacked(by_cpu(*tables)), rows)
        matrix = np.full((sum(rows), len(columns)), np.nan)
        if here:
            matrix[:, here] = _stacked(by_cpu(*tables))
        hidden = np.array([float(column.hidden_zeros) for column in columns])
        return Pending(matrix, rows, list(_send(by_device, columns)), hidden)


def _stacked(result: Matrix | tuple[Matrix, ...]) -> Matrix:
    return np.concatenate(result) if isinstance(result, tuple) else result


def _send(by_device: Callable[..., Tensor], columns: Sequence[Column]) -> Iterator[Sent]:
    """Start the reductions of every device that there is; columns without a second tensor get the first one's sums."""
    away: dict[tuple[torch.device, int], list[int]] = {}
    for i, column in enumerate(columns):
        present = len([t for t in column.tensors if t is not None])
        if column.away and column.tensors[0] is not None:
            away.setdefault((column.tensors[0].device, present), []).append(i)
    for (_, present), chosen in away.items():
        lists = [[cast(Tensor, columns[i].tensors[k]) for i in chosen] for k in range(present)]
        packed = (by_device if present > 1 else device_sums)(*lists)
        yield slice(0, len(packed)), chosen, Parcel(packed)


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(tensors: Sequence[Tensor | None]) -> cpu.Table:
    addresses = _addresses(tensors)
    counts = [0 if t is None else t.numel() for t in tensors]
    kinds = [0 if t is None else KINDS[t.dtype] for t in tensors]
    return cpu.Table(addresses, counts, kinds)


def _address(t: Tensor) -> int:
    return t.data_ptr() or 1  # an empty tensor has none


def _addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    return [0 if t is None else t.data_ptr() or 1 for t in tensors]


def _places(tensors: Sequence[Tensor | None]) -> list[int]:
    """What changes when a tensor moves; `map` takes two thirds of the time of a comprehension."""
    try:
        return list(map(Tensor.data_ptr, tensors))  # type: ignore[arg-type]
    except TypeError:  # None is among them
        return _addresses(tensors)


def _sizes(tensors: Sequence[Tensor | None]) -> list[int | None]:
    try:
        return list(map(_BYTES, tensors))
    except AttributeError:  # None is among them
        return [None if t is None else t.nbytes for t in tensors]


def _halves(tensors: Sequence[Tensor | None]) -> list[tuple[int, torch.dtype]]:
    """Columns of 2-byte tensors: bfloat16 may turn float16 in the same place."""
    return [(i, t.dtype) for i, t in enumerate(tensors) if t is not None and t.element_size() == 2]


def _remember(lists: Sequence[Sequence[Tensor | None]], tables: list[cpu.Table], cache: Cache | None) -> None:
    if cache is not None:
        cache.places = [_places(tensors) for tensors in lists]
        cache.sizes = [_sizes(tensors) for tensors in lists]
        cache.halves = [_halves(tensors) for tensors in lists]
        cache.forms = [[_form(t) for t in tensors] for tensors in lists]
        cache.tables = tables


def _remembered(lists: Sequence[Sequence[Tensor | None]], cache: Cache) -> list[cpu.Table] | None:
    """The tables for these tensors, moved where some lie elsewhere now; None where formats have changed."""
    try:
        if [_sizes(tensors) for tensors in lists] != cache.sizes or not _same_halves(lists, cache):
            return None
        places = [_places(tensors) for tensors in lists]
    except RuntimeError:  # a tensor without memory of its own has come in
        return None
    if places == cache.places:
        return cache.tables
    for tensors, now, before, forms in zip(lists, places, cache.places, cache.forms, strict=True):
        moved = [i for i, (here, there) in enumerate(zip(now, before, strict=True)) if here != there]
        if any(_form(tensors[i]) != forms[i] for i in moved):
            return None
    cache.places = places
    cache.tables = [table.moved(_addresses(tensors)) for table, tensors in zip(cache.tables, lists, strict=True)]
    return cache.tables


def _same_halves(lists: Sequence[Sequence[Tensor | None]], cache: Cache) -> bool:
    for tensors, halves in zip(lists, cache.halves, strict=True):
        if any(getattr(tensors[i], "dtype", None) != dtype for i, dtype in halves):
            return False
    return True


def _form(t: Tensor | None) -> object:
    """All but the place that decides how a tensor is read: as cheap as can be, since gradients are new at each step."""
    return None if t is None else (type(t), t.dtype, t.device, t.layout, t.is_neg(), t.shape, t.stride())
