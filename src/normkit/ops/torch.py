"""torch tensors: CPU memory goes to the kernel in place, other devices are reduced where they are.

Nothing here waits for a device: results come as a `Pending`, whose `wait()` gives the matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from normkit.errors import ArgumentError
from normkit.ops import cpu
from normkit.ops.torch_device import Parcel, device_grad_sums, device_step_sums, device_sums
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

_KINDS = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
_SINGLE = (torch.bool, torch.int8, torch.uint8, torch.int16)  # float32 holds them exactly
_ZEROS = SUMS.index("zeros")

Group = tuple[Tensor | None, ...]  # what stands in one column: weight; gradient, weight and copy; weight and copy
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
        return tuple(np.split(self._matrix, np.cumsum(self._rows)[:-1]))


class Cache:
    """Remembers where tensors lie from one call to the next; one per list of tensors and per function.

    Each call compares every tensor's address, bytes and dtype with what is remembered.
    """

    def __init__(self) -> None:
        self.addresses: list[list[int]] = []
        self.formats: list[list[object]] = []
        self.tables: list[cpu.Table] = []


# --- the three passes ---------------------------------------------------------------------------------------------------


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


def matrix_of_sums(tensors: Sequence[Tensor]) -> Matrix:
    """[6][N] sums, waited for."""
    return sums(tensors).wait()[0]


def sums_of_rows(rows: Tensor) -> Matrix:
    """[6][R] sums of the rows of a 2-D tensor."""
    with torch.no_grad():
        block = _readable(rows)
        if _on_device(block):
            return matrix_of_sums(list(block))
        block = block.contiguous()
        count, length = block.shape
        addresses = _address(block) + np.arange(count) * length * block.element_size()
        kinds = np.full(count, _KINDS[block.dtype])
        return cpu.sums(cpu.Table(addresses, np.full(count, length), kinds, keep=block))


def as_rows(x: Tensor, kept: tuple[int, ...]) -> Tensor:
    """Kept axes to the front in their order and flattened, the rest flattened: [R][..]."""
    front = torch.movedim(x.detach(), kept, tuple(range(len(kept))))
    count = int(np.prod([x.shape[axis] for axis in kept], dtype=np.int64))
    return front.reshape(count, x.numel() // count if count else 0)


def as_float64(x: Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        return cast("NDArray[np.float64]", _readable(x).to("cpu", torch.float64).numpy())


# --- dealing tensors out to the kernel and to devices -----------------------------------------------------------------


def _passes(
    on_cpu: Callable[..., Any],
    on_device: Callable[..., Tensor],
    rows: tuple[int, ...],
    lists: Sequence[Sequence[Tensor | None]],
    cache: Cache | None,
) -> Pending:
    with torch.no_grad():
        tables = _remembered(lists, cache) if cache is not None and cache.tables else None
        if tables is not None:
            return Pending(_stacked(on_cpu(*tables)), rows)
        columns = [_fit(group) for group in zip(*lists, strict=True)]
        here = [i for i, column in enumerate(columns) if not column.away]
        tables = [_table([columns[i].tensors[k] for i in here]) for k in range(len(lists))]
        if len(here) == len(columns) and all(column.untouched for column in columns):
            _remember(lists, tables, cache)
            return Pending(_stacked(on_cpu(*tables)), rows)
        matrix = np.full((sum(rows), len(columns)), np.nan)
        if here:
            matrix[:, here] = _stacked(on_cpu(*tables))
        hidden = np.array([float(column.hidden_zeros) for column in columns])
        return Pending(matrix, rows, list(_send(on_device, columns)), hidden)


def _stacked(result: Matrix | tuple[Matrix, ...]) -> Matrix:
    return np.concatenate(result) if isinstance(result, tuple) else result


def _send(on_device: Callable[..., Tensor], columns: Sequence[Column]) -> Iterator[Sent]:
    """Start the reductions of every device that there is; columns without a second tensor get the first one's sums."""
    away: dict[tuple[torch.device, int], list[int]] = {}
    for i, column in enumerate(columns):
        present = len([t for t in column.tensors if t is not None])
        if column.away and column.tensors[0] is not None:
            away.setdefault((column.tensors[0].device, present), []).append(i)
    for (_, present), chosen in away.items():
        lists = [[cast(Tensor, columns[i].tensors[k]) for i in chosen] for k in range(present)]
        packed = (on_device if present > 1 else device_sums)(*lists)
        yield slice(0, len(packed)), chosen, Parcel(packed)


# --- one column -----------------------------------------------------------------------------------------------------------


@dataclass
class Column:
    """The tensors of one column, fit to be read together: one dtype, dense, in one order of memory."""

    tensors: tuple[Tensor | None, ...]
    away: bool  # on a device
    untouched: bool = False  # they are the caller's own, so their addresses may be remembered
    hidden_zeros: int = 0  # entries that a sparse tensor does not store


def _fit(group: Group) -> Column:
    present = [t for t in group if t is not None]
    for t in present:
        _refuse_unreadable(t)
    away = any(_on_device(t) for t in present)
    if _readable_together(present) or (away and all(t.layout == torch.strided for t in present)):
        if away and group[0] is None and len(group) == 3:
            return Column(_copied(group), away)
        return Column(group, away, untouched=True)
    first, *others = _copied(group)
    hidden = 0
    if first is not None and first.layout != torch.strided:
        hidden, first, others = _stored(first, others)
    dtypes = [_readable_dtype(t) for t in (first, *others) if t is not None]
    dtype = reduce(torch.promote_types, dtypes)
    fit = tuple(None if t is None else t.to(dtype).contiguous().resolve_neg() for t in (first, *others))
    return Column(fit, away, hidden_zeros=hidden)


def _readable_together(tensors: Sequence[Tensor]) -> bool:
    first = tensors[0] if tensors else None
    for t in tensors:
        if t.layout != torch.strided or t.dtype not in _KINDS or t.is_neg() or not _dense(t):
            return False
        if t is not first and first is not None and not (t.dtype == first.dtype and _same_order(t, first)):
            return False
    return True


def _copied(group: Group) -> Group:
    """Where a weight's copy is wanted that the kernel cannot write along the way, write it now."""
    if len(group) == 3 and group[1] is not None and group[2] is not None:
        group[2].copy_(group[1])
        return (group[0], group[1], None)
    return group


def _stored(sparse: Tensor, others: list[Tensor | None]) -> tuple[int, Tensor, list[Tensor | None]]:
    """The entries that a sparse tensor stores, the others' entries at the same places, and how many are not stored."""
    if sparse.layout != torch.sparse_coo:
        return 0, sparse.to_dense(), others
    sparse = sparse.coalesce()
    where = tuple(sparse.indices())
    values = sparse.values()
    return sparse.numel() - values.numel(), values, [None if t is None else t[where] for t in others]


def _refuse_unreadable(t: Tensor) -> None:
    shape = tuple(t.shape)
    if t.is_complex():
        raise ArgumentError(
            f"A {t.dtype} tensor of shape {shape} was given; norms are of real numbers: pass view_as_real(t)."
        )
    if t.is_meta:
        raise ArgumentError(
            f"A tensor of shape {shape} on the meta device was given; it has no values: materialize it first."
        )
    if type(t) not in (Tensor, torch.nn.Parameter) and is_traceable_wrapper_subclass(t):
        raise ArgumentError(
            f"A {type(t).__name__} of shape {shape} was given; it has no plain memory: pass its local or dequantized tensor."
        )
    if t.is_quantized:
        raise ArgumentError(f"A quantized tensor of shape {shape} was given; pass t.dequantize() instead.")


def _readable_dtype(t: Tensor) -> torch.dtype:
    if t.dtype in _KINDS:
        return t.dtype
    return torch.float32 if t.dtype in _SINGLE or t.is_floating_point() else torch.float64


def _readable(t: Tensor) -> Tensor:
    _refuse_unreadable(t)
    dense = t.detach() if t.layout == torch.strided else t.detach().to_dense()
    return dense.to(_readable_dtype(dense)).resolve_neg()


def _dense(t: Tensor) -> bool:
    """Whether `t` fills its memory, in whatever order of its axes."""
    if t.is_contiguous():
        return True
    filled = 1
    for stride, size in sorted((stride, size) for stride, size in zip(t.stride(), t.shape, strict=True) if size != 1):
        if stride != filled:
            return False
        filled *= size
    return True


def _same_order(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.stride() == b.stride() or (a.is_contiguous() and b.is_contiguous()))


def _on_device(t: Tensor) -> bool:
    return t.device.type != "cpu"


# --- tables -----------------------------------------------------------------------------------------------------------------


def _table(tensors: Sequence[Tensor | None]) -> cpu.Table:
    addresses = _addresses(tensors)
    counts = [0 if t is None else t.numel() for t in tensors]
    kinds = [0 if t is None else _KINDS[t.dtype] for t in tensors]
    return cpu.Table(addresses, counts, kinds)


def _address(t: Tensor) -> int:
    return t.data_ptr() or 1  # an empty tensor has none


def _addresses(tensors: Sequence[Tensor | None]) -> list[int]:
    return [0 if t is None else t.data_ptr() or 1 for t in tensors]


def _formats(tensors: Sequence[Tensor | None]) -> list[object]:
    return [None if t is None else (t.nbytes, t.dtype) for t in tensors]


def _remember(lists: Sequence[Sequence[Tensor | None]], tables: list[cpu.Table], cache: Cache | None) -> None:
    if cache is not None:
        cache.addresses = [_addresses(tensors) for tensors in lists]
        cache.formats = [_formats(tensors) for tensors in lists]
        cache.tables = tables


def _remembered(lists: Sequence[Sequence[Tensor | None]], cache: Cache) -> list[cpu.Table] | None:
    """The tables for these tensors, moved where some lie elsewhere now; None where they are not the same kind of list."""
    if [_formats(tensors) for tensors in lists] != cache.formats:
        return None
    try:
        addresses = [_addresses(tensors) for tensors in lists]
    except RuntimeError:  # a tensor without memory of its own has come in
        return None
    if addresses == cache.addresses:
        return cache.tables
    groups, now, before = zip(*lists, strict=True), zip(*addresses, strict=True), zip(*cache.addresses, strict=True)
    for group, here, there in zip(groups, now, before, strict=True):
        if here != there and not _fit_in_place(group):
            return None
    cache.addresses = addresses
    cache.tables = [table.moved(places) for table, places in zip(cache.tables, addresses, strict=True)]
    return cache.tables


def _fit_in_place(group: Group) -> bool:
    present = [t for t in group if t is not None]
    for t in present:
        _refuse_unreadable(t)
    return _readable_together(present) and not any(_on_device(t) for t in present)
