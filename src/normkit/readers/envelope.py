"""The course of a whole run in a given number of spans, read from the pyramid as far as it reaches."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from normkit.errors import ArgumentError
from normkit.readers import blobs
from normkit.readers.database import DamageError
from normkit.readers.index import EMPTY, Index, Layout
from normkit.store.schema import COLUMNS
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

RADIX = 16
ENOUGH = 3  # read at most so many times the spans asked for
ITEM = 4  # bytes of a float32
ROWS = {"l1": "abs", "l2": "sq", "linf": "max", "rms": "sq", "mean": "sum", "zeros": "zeros", "nonfinite": "nonfinite"}


Numbered = tuple[int, Layout]


class Envelope(NamedTuple):
    """Least, mean and most of one norm over spans of steps, ascending.

    Shapes: first, last (steps) and records [spans]; least, mean, most [spans][tensors], columns as in `tensors` of the
        recording; NaN where a tensor has no value in a span.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    records: NDArray[np.int64]
    least: Matrix
    mean: Matrix
    most: Matrix


class Span(NamedTuple):
    """A block of the pyramid, or one record (level 0)."""

    level: int
    key: int  # of the block: its id; of the record: its seq
    first: int  # seq
    last: int
    records: int
    first_step: int
    last_step: int
    layout: int


def read(
    con: sqlite3.Connection, index: Index, kind: str, quantity: str, *, spans: int, start: int, stop: int
) -> Envelope:
    """The envelope over the steps from `start` to `stop`, both included."""
    if kind not in ROWS:
        raise ArgumentError(f"{kind!r} does not follow from the pyramid; {', '.join(map(repr, ROWS))} do")
    chosen = _chosen(_spans(con, index, start, stop), spans)
    planes = np.full((3, len(chosen), len(index.params)), np.nan)
    numbers = np.array([span.layout for span in chosen], dtype=np.int64)
    for number in np.unique(numbers).tolist():
        layout = index.layouts.get(number, EMPTY)
        columns = np.array([index.columns[param.name] for param in layout.params], dtype=np.int64)
        scale = _scale(kind, layout.counts)
        for level in (True, False):
            places = [i for i, span in enumerate(chosen) if span.layout == number and (span.level > 0) is level]
            if places:
                get = _of_blocks if level else _of_records
                keys = [chosen[i].key for i in places]
                values = get(con, (number, layout), keys, row=ROWS[kind], quantity=quantity)
                planes[:, np.array(places)[:, None], columns] = values[:, :, layout.positions] * scale
    return _merged(chosen, planes, spans)


def _spans(con: sqlite3.Connection, index: Index, start: int, stop: int) -> list[Span]:
    """All blocks and records that touch these steps, without those that a later attempt replaced."""
    records = [
        Span(0, seq, seq, seq, 1, step, step, layout)
        for seq, step, layout in zip(
            index.seqs.tolist(), index.steps.tolist(), index.layout_numbers.tolist(), strict=True
        )
        if start <= step <= stop
    ]
    if not con.execute("SELECT 1 FROM sqlite_master WHERE name = 'pyramid'").fetchone():
        return records  # a file of the first version
    begun = dict(con.execute("SELECT attempt, min(step) FROM record GROUP BY attempt").fetchall())
    query = (
        "SELECT level, id, first, last, records, first_step, last_step, layout, attempt FROM pyramid"
        " WHERE first_step >= ? AND last_step <= ?"
    )
    blocks = []
    for *numbers, attempt in con.execute(query, (start, stop)):
        span = Span(*map(int, numbers))
        if all(span.last_step < step for later, step in begun.items() if later > attempt):
            blocks.append(span)
    return records + blocks


def _chosen(spans: Sequence[Span], wanted: int) -> list[Span]:
    """Such that each record is in one span: of the finest level that is not too fine, else a coarser, else a finer."""
    total = max((span.last for span in spans), default=0) - min((span.first for span in spans), default=0) + 1
    level = 0
    while total > ENOUGH * wanted * RADIX**level:
        level += 1
    top = max((span.level for span in spans), default=0)
    by_level: dict[int, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.first):
        by_level.setdefault(span.level, []).append(span)
    taken: list[Span] = []
    for number in (*range(level, top + 1), *range(min(level, top + 1) - 1, -1, -1)):
        taken = sorted([*taken, *_beside(taken, by_level.get(number, ()))], key=lambda span: span.first)
    return sorted(taken, key=lambda span: span.first_step)


def _beside(taken: Sequence[Span], more: Sequence[Span]) -> Sequence[Span]:
    """Those of `more` that hold no record of `taken`; both are ascending and free of overlap."""
    if not taken or not more:
        return more
    first, last = (np.array([span[place] for span in taken]) for place in (2, 3))
    mine, ends = (np.array([span[place] for span in more]) for place in (2, 3))
    free = np.searchsorted(first, ends, "right") == np.searchsorted(last, mine, "left")
    return [more[i] for i in np.flatnonzero(free).tolist()]


def _scale(norm: str, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the stored number of each tensor is multiplied with: rms = l2 / sqrt(n), mean = sum / n."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"rms": 1 / np.sqrt(counts), "mean": 1 / counts}.get(norm, np.ones(len(counts)))


def _of_records(con: sqlite3.Connection, layout: Numbered, keys: Sequence[int], *, row: str, quantity: str) -> Matrix:
    seqs = np.array(keys, dtype=np.int64)
    values = blobs.read_rows(con, *layout, seqs, quantity=quantity, names=(row,))[0]
    return np.broadcast_to(np.sqrt(values) if row == "sq" else values, (3, *values.shape))


def _of_blocks(con: sqlite3.Connection, layout: Numbered, keys: Sequence[int], *, row: str, quantity: str) -> Matrix:
    """[min, mean, max][blocks][columns] of one row of sums."""
    width, column = layout[1].width, COLUMNS[quantity]
    out, line = np.full((3, len(keys), width), np.nan), 3 * width * ITEM
    query = f"SELECT length({column}), substr({column}, ?, ?) FROM pyramid WHERE id = ?"
    for place, key in enumerate(keys):
        length, part = con.execute(query, (SUMS.index(row) * line + 1, line, key)).fetchone()
        if length is None:
            continue
        if length not in (6 * line, 7 * line) or not (isinstance(part, bytes) or length == 0):
            raise DamageError(f"a block of the {quantity} pyramid takes {length} bytes where {6 * line} were expected")
        out[:, place] = np.frombuffer(part or b"", "<f4").reshape(3, width)
    return out


def _merged(chosen: Sequence[Span], planes: Matrix, wanted: int) -> Envelope:
    """Neighbours joined until there are at most `wanted`, of about as many steps each."""
    heads = np.array([(span.first_step, span.last_step, span.records) for span in chosen], dtype=np.int64)
    first, last, records = heads.reshape(-1, 3).T
    if len(chosen) <= wanted:
        return Envelope(first, last, records, *planes)
    width = (last[-1] - first[0] + 1) / wanted
    bins = np.minimum(((first + last) / 2 - first[0]) // width, wanted - 1)
    edges = np.flatnonzero(np.diff(bins, prepend=-1))
    weight = np.where(np.isnan(planes[1]), 0.0, records[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.add.reduceat(np.where(weight > 0, planes[1], 0.0) * weight, edges)
        mean = total / np.add.reduceat(weight, edges)
    least, most = np.fmin.reduceat(planes[0], edges), np.fmax.reduceat(planes[2], edges)
    ends = np.append(edges[1:], len(first)) - 1
    return Envelope(first[edges], last[ends], np.add.reduceat(records, edges), least, mean, most)
