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
from normkit.store.pyramid import RADIX
from normkit.store.schema import COLUMNS
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

    Spans = NDArray[np.int64]  # [spans][8], see below
    Planes = NDArray[np.float32]  # [min, mean, max][spans][tensors], or one of the three

MOST = 16  # levels
ENOUGH = 3  # read at most so many times the spans asked for
ITEM = 4  # bytes of a float32
ROWS = {"l1": "abs", "l2": "sq", "linf": "max", "rms": "sq", "mean": "sum", "zeros": "zeros", "nonfinite": "nonfinite"}


class Envelope(NamedTuple):
    """Least, mean and most of one norm over spans of steps, ascending.

    Shapes: first, last (steps) and records [spans]; least, mean, most [spans][tensors] float32, columns as in
        `tensors` of the recording; NaN where a tensor has no value in a span.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    records: NDArray[np.int64]
    least: Planes
    mean: Planes
    most: Planes


# A span is a block of the pyramid or one record (level 0); `key` is the block's id, or the record's seq.
LEVEL, KEY, FIRST, LAST, RECORDS, FIRST_STEP, LAST_STEP, LAYOUT = range(8)


def read(
    con: sqlite3.Connection, index: Index, kind: str, quantity: str, *, spans: int, start: int, stop: int
) -> Envelope:
    """The envelope over the steps from `start` to `stop`, both included; a coarse block at an end reaches beyond it."""
    if kind not in ROWS:
        raise ArgumentError(f"{kind!r} does not follow from the pyramid; {', '.join(map(repr, ROWS))} do")
    chosen = _chosen(_spans(con, index), spans, start, stop)
    blobs.check_room(len(chosen), len(index.params), con)
    planes = np.full((3, len(chosen), len(index.params)), np.nan, np.float32)
    for number in np.unique(chosen[:, LAYOUT]).tolist():
        layout = index.layouts.get(number, EMPTY)
        columns = np.array([index.columns[param.name] for param in layout.params], dtype=np.int64)
        part = _Part(con, number, layout, row=ROWS[kind], quantity=quantity)
        for level in np.unique(chosen[chosen[:, LAYOUT] == number, LEVEL]).tolist():
            places = np.flatnonzero((chosen[:, LAYOUT] == number) & (chosen[:, LEVEL] == level))
            part.put(planes, places, columns, level, chosen[places, KEY], scale=_scale(kind, layout.counts))
    return _merged(chosen, planes, spans)


def _spans(con: sqlite3.Connection, index: Index) -> Spans:
    """All records and blocks in the order of recording, without those that a later attempt replaced."""
    seqs, steps, layouts = index.seqs, index.steps, index.layout_numbers
    zero = np.zeros_like(seqs)
    records: Spans = np.stack([zero, seqs, seqs, seqs, zero + 1, steps, steps, layouts], axis=1)
    if con.execute("PRAGMA user_version").fetchone()[0] < 2:
        return records  # a file of the first version
    query = "SELECT level, id, first, last, records, first_step, last_step, layout, attempt FROM pyramid"
    blocks = _checked(con.execute(query).fetchall())
    for attempt, step in index.begun.items():
        blocks = blocks[(blocks[:, 8] >= attempt) | (blocks[:, LAST_STEP] < step)]
    whole = np.concatenate([records, blocks[:, :8]])
    return np.asarray(whole[np.argsort(whole[:, FIRST], kind="stable")])


def _checked(rows: Sequence[Sequence[object]]) -> Spans:
    """The rows as numbers. Raises: DamageError where no run makes such blocks."""
    try:
        blocks: Spans = np.array(rows, dtype=np.int64).reshape(-1, 9)
    except (TypeError, ValueError, OverflowError) as error:
        raise DamageError(f"a number of the pyramid is not one ({error})") from None
    level, _, first, last, records, first_step, last_step = blocks[:, :7].T
    wrong = (level < 1) | (level > MOST) | (first > last) | (records < 1) | (first_step > last_step)
    for row in blocks[wrong][:1].tolist():
        raise DamageError(
            f"the block of records {row[FIRST]} to {row[LAST]} has the level {row[LEVEL]}, {row[RECORDS]} records and "
            f"the steps {row[FIRST_STEP]} to {row[LAST_STEP]}"
        )
    order = np.lexsort((first, level))
    same, begins, ends = np.diff(level[order]) == 0, first[order][1:], last[order][:-1]
    for place in np.flatnonzero(same & (begins <= ends))[:1].tolist():
        raise DamageError(f"blocks of level {level[order][place]} overlap at record {begins[place]}")
    return blocks


def _chosen(spans: Spans, wanted: int, start: int, stop: int) -> Spans:
    """Such that each record is in one span: as fine as `wanted` allows, and as is there."""
    records = spans[(spans[:, LEVEL] == 0) & (spans[:, LAST_STEP] >= start) & (spans[:, FIRST_STEP] <= stop)]
    total = int(records[:, KEY].max()) - int(records[:, KEY].min()) + 1 if len(records) else 0
    finest = 0
    while total > ENOUGH * wanted * RADIX**finest:
        finest += 1
    taken = spans[:0]
    for level in range(int(spans[:, LEVEL].max(initial=0)), -1, -1):
        taken = _refined(taken, spans[spans[:, LEVEL] == level], replace=level >= finest)
    seen = taken[(taken[:, LAST_STEP] >= start) & (taken[:, FIRST_STEP] <= stop)]
    return np.asarray(seen[np.argsort(seen[:, FIRST_STEP], kind="stable")])


def _refined(taken: Spans, finer: Spans, *, replace: bool) -> Spans:
    """`taken` with the `finer` spans beside it and, to `replace` them, in the place of those that they are whole of."""
    begin, end = (
        np.searchsorted(finer[:, FIRST], taken[:, FIRST]),
        np.searchsorted(finer[:, LAST], taken[:, LAST], "right"),
    )
    sums = np.concatenate([[0], np.cumsum(finer[:, RECORDS])])
    kept = taken[(sums[np.maximum(begin, end)] - sums[begin] != taken[:, RECORDS]) | (not replace)]
    before = np.searchsorted(kept[:, LAST], finer[:, FIRST], "left")  # spans that end before each of the finer begins
    begun = np.searchsorted(kept[:, FIRST], finer[:, LAST], "right")  # and those that begin before it ends
    whole = np.concatenate([kept, finer[before == begun]])
    return np.asarray(whole[np.argsort(whole[:, FIRST], kind="stable")])


def _scale(kind: str, counts: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """What the stored number of each tensor is multiplied with: rms = l2 / sqrt(n), mean = sum / n; else None."""
    if kind not in ("rms", "mean"):
        return None
    with np.errstate(divide="ignore"):
        return 1 / (np.sqrt(counts) if kind == "rms" else counts)


class _Part:
    """One row of the sums of one quantity in one layout, of blocks or of records."""

    def __init__(self, con: sqlite3.Connection, number: int, layout: Layout, *, row: str, quantity: str) -> None:
        self._con, self._number, self._layout, self._row, self._quantity = con, number, layout, row, quantity

    def put(
        self,
        planes: Planes,
        places: NDArray[np.int64],
        columns: NDArray[np.int64],
        level: int,
        keys: NDArray[np.int64],
        *,
        scale: NDArray[np.float64] | None,
    ) -> None:
        """Fill `places` x `columns` of planes [min, mean, max][spans][tensors]."""
        values = self._blocks(level, keys) if level else self._records(keys)
        whole = len(places) == planes.shape[1] and np.array_equal(columns, self._layout.positions)
        with np.errstate(over="ignore", invalid="ignore"):  # float32 has no room for some, and 0 / 0 is NaN
            if whole and planes.shape[2] == self._layout.width:
                planes[:] = values if scale is None else values * scale
            else:
                chosen = values[:, :, self._layout.positions]
                planes[:, places[:, None], columns] = chosen if scale is None else chosen * scale

    def _records(self, seqs: NDArray[np.int64]) -> Matrix:
        values = blobs.read_rows(
            self._con, self._number, self._layout, seqs, quantity=self._quantity, names=(self._row,)
        )[0]
        with np.errstate(invalid="ignore"):
            return np.broadcast_to(np.sqrt(values) if self._row == "sq" else values, (3, *values.shape))

    def _blocks(self, level: int, keys: NDArray[np.int64]) -> Planes:
        width, column = self._layout.width, COLUMNS[self._quantity]
        out, line = np.full((3, len(keys), width), np.nan, np.float32), 3 * width * ITEM
        place = {key: i for i, key in enumerate(keys.tolist())}
        query = f"SELECT id, length({column}), substr({column}, ?, ?) FROM pyramid WHERE level = ? AND layout = ?"
        for key, length, part in self._con.execute(
            query, (SUMS.index(self._row) * line + 1, line, level, self._number)
        ):
            if length is None or key not in place:
                continue
            if length not in (6 * line, 7 * line) or not isinstance(part or b"", bytes):
                raise DamageError(
                    f"block {key} of the {self._quantity} pyramid takes {length} bytes where {6 * line} were expected"
                )
            out[:, place[key]] = np.frombuffer(part or b"", "<f4").reshape(3, width)
        return out


def _merged(chosen: Spans, planes: Planes, wanted: int) -> Envelope:
    """Neighbours joined until there are at most `wanted`, of about as many steps each."""
    first, last, records = chosen[:, FIRST_STEP], chosen[:, LAST_STEP], chosen[:, RECORDS]
    if len(chosen) <= wanted:
        return Envelope(first, last, records, *planes)
    width = (last[-1] - first[0] + 1) / wanted
    bins = np.minimum(((first + last) / 2 - first[0]) // width, wanted - 1)
    edges = np.flatnonzero(np.diff(bins, prepend=-1))
    ends = np.append(edges[1:], len(first))
    least, mean, most = planes[:, edges]
    many = np.flatnonzero(ends - edges > 1)
    total, weight = np.zeros((2, len(many), planes.shape[2]))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for member in range(int((ends - edges).max())):  # one member of each of these bins at a time
            some = np.flatnonzero(edges[many] + member < ends[many])
            which, into = edges[many[some]] + member, many[some]
            there = ~np.isnan(planes[1, which])
            least[into], most[into] = np.fmin(least[into], planes[0, which]), np.fmax(most[into], planes[2, which])
            total[some] += np.where(there, planes[1, which], 0.0) * records[which, None]
            weight[some] += there * records[which, None]
        mean[many] = total / weight
    return Envelope(first[edges], last[ends - 1], np.add.reduceat(records, edges), least, mean, most)
