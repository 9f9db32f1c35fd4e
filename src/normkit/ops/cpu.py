"""Sums of dense blocks of memory on the CPU, and changes of them, whichever library made them.

A `Table` says where the blocks lie. The work is cut into segments, bunched into units of similar size, and claimed unit
by unit by the threads of an own pool; the compiled loops are in `kernels`, which is imported when first needed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normkit.errors import ArgumentError

if TYPE_CHECKING:
    from normkit.types import Matrix

    Ints = NDArray[np.int64]

KINDS = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3}
STORED_AS = (np.float64, np.float32, np.uint16, np.int16)  # what the kernels see: half precision as integers
ITEMSIZES = np.array([8, 4, 2, 2])

SEGMENT = 2**18  # elements of one accumulation
ALONE_BELOW = 2**20  # bytes that are not worth waking a second thread for


class Table:
    """Dense blocks of memory: `counts[i]` elements of kind `kinds[i]` (see `KINDS`) at `addresses[i]`.

    Address 0 says that there is none: its column of sums is NaN (an empty block has any other address).
    `keep` is whatever must stay alive for the addresses to be good.
    """

    def __init__(self, addresses: Any, counts: Any, kinds: Any, keep: object = None) -> None:
        self.addresses: Ints = np.ascontiguousarray(addresses, dtype=np.int64)
        self.counts: Ints = np.ascontiguousarray(counts, dtype=np.int64)
        self.kinds: NDArray[np.int8] = np.ascontiguousarray(kinds, dtype=np.int8)
        self.keep = keep

    def __len__(self) -> int:
        return len(self.addresses)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        present: NDArray[np.bool_] = self.addresses != 0
        return present

    @cached_property
    def plans(self) -> list[Plan]:
        """The work, one plan per kind of element that occurs."""
        filled = self.present & (self.counts > 0)
        kinds = [int(kind) for kind in np.unique(self.kinds[filled])]
        return [_plan(kind, np.flatnonzero(filled & (self.kinds == kind)), self.counts) for kind in kinds]

    def moved(self, addresses: Any, keep: object = None) -> Table:
        """The same blocks at other addresses; the plans are kept where the same ones are present."""
        other = Table(addresses, self.counts, self.kinds, keep)
        if np.array_equal(other.present, self.present):
            other.plans = self.plans
        return other


@dataclass(frozen=True)
class Plan:
    """The segments of all columns of one kind. `segments` is [column, first element, elements][S]."""

    kind: int
    columns: Ints
    segments: Ints
    units: Ints
    firsts: Ints
    bytes: int


def _plan(kind: int, columns: Ints, counts: Ints) -> Plan:
    sizes = counts[columns]
    pieces = -(-sizes // SEGMENT)
    firsts = np.concatenate([[0], np.cumsum(pieces)[:-1]])
    starts = (np.arange(pieces.sum()) - np.repeat(firsts, pieces)) * SEGMENT
    lengths = np.minimum(np.repeat(sizes, pieces) - starts, SEGMENT)
    segments = np.stack([np.repeat(columns, pieces), starts, lengths])
    return Plan(kind, columns, segments, _units(lengths), firsts, int(sizes.sum() * ITEMSIZES[kind]))


def _units(lengths: Ints) -> Ints:
    """Boundaries between bunches of segments of about SEGMENT / 4 elements; a segment may be more."""
    bunch = (np.cumsum(lengths) - lengths) // (SEGMENT // 4)
    return np.concatenate([[0], np.flatnonzero(np.diff(bunch)) + 1, [len(lengths)]])


# --- the three passes ------------------------------------------------------------------------------------------------


def sums(w: Table) -> Matrix:
    """The six sums of every block: [sum, abs, sq, max, zeros, nonfinite][N]."""
    return _run("sums", 6, w, [w.addresses])


def grad_sums(g: Table, w: Table, copies: Table | None = None) -> Matrix:
    """The six sums of every g, and w.g as the seventh: [7][N].

    Where `copies` is given, w is copied to it in the same pass, also where there is no g.
    """
    targets = np.zeros_like(w.addresses) if copies is None else copies.addresses
    matrix = _run("grad_sums", 7, g, [g.addresses, w.addresses, targets])
    if copies is not None and not g.present.all():
        for i in np.flatnonzero(~g.present & copies.present & w.present):
            size = int(w.counts[i] * ITEMSIZES[w.kinds[i]])
            ctypes.memmove(int(copies.addresses[i]), int(w.addresses[i]), size)
    return matrix


def step_sums(w: Table, old: Table) -> tuple[Matrix, Matrix]:
    """The six sums of every w; those of w - old with old.(w - old) as the seventh: [6][N] and [7][N].

    A column of the second is NaN where there is no old.
    """
    both = np.where(old.present, w.addresses, 0)
    if old.present.all() or not w.present.any():
        matrix = _run("step_sums", 13, w, [w.addresses, old.addresses])
        return matrix[:6], matrix[6:]
    matrix = _run("step_sums", 13, w.moved(both), [both, old.addresses])
    return sums(w), matrix[6:]


# --- three passes that write -----------------------------------------------------------------------------------------


def keep(w: Table, copies: Table) -> None:
    """Copy every w."""
    _write("keep", [w, copies], [0.0])


def scale(w: Table, factors: Sequence[float]) -> None:
    """w <- factor w, one factor for every block; float32 and float64 only."""
    _write("scale", [w], factors)


def take_cautiously(w: Table, old: Table, taken: float) -> None:
    """w <- w - s old where (w - old) old <= 0, entry by entry; float32 and float64 only."""
    _write("take_cautiously", [w, old], [taken])


def _write(kernel: str, tables: Sequence[Table], numbers: Sequence[float]) -> None:
    from normkit.ops.compiling import compiled

    places = np.stack([table.addresses for table in tables])
    for plan in tables[0].plans:
        _work_plan(compiled(kernel, STORED_AS[plan.kind]), plan, places, np.array([numbers], dtype=np.float64))


# --- the work of one plan ---------------------------------------------------------------------------------------------


def _run(kernel: str, rows: int, table: Table, addresses: Sequence[Ints]) -> Matrix:
    from normkit.ops.compiling import compiled

    matrix = np.full((rows, len(table)), np.nan)
    matrix[:, table.present & (table.counts == 0)] = 0.0
    places = np.stack(addresses)
    for plan in table.plans:
        columns = _run_plan(compiled(kernel, STORED_AS[plan.kind]), rows, plan, places)
        if len(plan.columns) == len(table):
            return columns
        matrix[:, plan.columns] = columns
    return matrix


def _run_plan(call: Callable[..., None], rows: int, plan: Plan, places: Ints) -> Matrix:
    """[rows][columns of the plan]"""
    out = np.empty((rows, plan.segments.shape[1]))
    _work_plan(call, plan, places, out)
    return _merge(out, plan)


def _work_plan(call: Callable[..., None], plan: Plan, places: Ints, out: Matrix) -> None:
    """Every thread claims units until none is left."""
    like = np.empty(0, STORED_AS[plan.kind])
    claimed = np.zeros(1, np.int64)
    _share(lambda: call(like, places, plan.segments, plan.units, claimed.ctypes.data, out), plan)


_LARGEST = (3, 9)  # rows that merge by maximum


def _merge(out: Matrix, plan: Plan) -> Matrix:
    if len(plan.columns) == out.shape[1]:
        return out
    with np.errstate(all="ignore"):  # infinities of both signs are stored as what they add up to
        merged: Matrix = np.add.reduceat(out, plan.firsts, axis=1)
    for row in _LARGEST:
        if row < len(out):
            merged[row] = np.maximum.reduceat(out[row], plan.firsts)
    return merged


# --- threads ---------------------------------------------------------------------------------------------------------

_pools: dict[int, ThreadPoolExecutor] = {}  # by process: the threads of a parent do not live in a forked child


def threads() -> int:
    """How many threads share the work: the processors this process may use, or NORMKIT_THREADS."""
    given = os.environ.get("NORMKIT_THREADS")
    if given is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.strip().isdecimal() or int(given) < 1:
        raise ArgumentError(f"NORMKIT_THREADS is {given!r}; it must be a whole number of threads, 1 or more")
    return int(given)


def _share(work: Callable[[], None], plan: Plan) -> None:
    """Do the work here and, where it is large enough, on the pool's threads at the same time."""
    helpers = 0 if plan.bytes < ALONE_BELOW else min(threads(), len(plan.units) - 1) - 1
    futures = [_submit(work) for _ in range(helpers)]
    work()
    for future in futures:
        if future is not None and not future.cancel():  # one that has not begun finds nothing left to do
            future.result()


def _submit(work: Callable[[], None]) -> Future[None] | None:
    try:
        return _pool(os.getpid(), threads()).submit(work)
    except RuntimeError:  # the interpreter is shutting down: no new threads, the caller does all of it
        return None


def _pool(process: int, size: int) -> ThreadPoolExecutor:
    pool = _pools.get(process)
    if pool is None or pool._max_workers < size - 1:
        pool = _pools[process] = ThreadPoolExecutor(max(size - 1, 1), thread_name_prefix="normkit")
    return pool
