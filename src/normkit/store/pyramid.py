"""The pyramid: what the records say at a coarser and coarser scale, kept up while they are written."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.store.jobs import SMALL, Row, to_json
from normkit.types import QUANTITIES, SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Planes = NDArray[np.float32]  # [sum][min, mean, max][tensor], or [sum][tensor] of one of the three

RADIX = 16
MOST = 16  # levels: 16**16 records are more than 64 bits can number
BLOCK = (
    "INSERT INTO pyramid (level, first, last, records, first_step, last_step, attempt, layout, scalars,"
    ' weight, grad, "update") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
)
READ = BLOCK.partition("(")[2].partition(")")[0]
SQUARES = SUMS.index("sq")
Span = tuple[float, float, float]  # least, mean, most


@dataclass(slots=True)
class Block:
    """What some consecutive records of one layout and attempt say together; `planes` has one entry per quantity."""

    level: int
    first: int
    last: int
    records: int
    first_step: int
    last_step: int
    attempt: int
    layout: int
    scalars: dict[str, Span]
    planes: tuple[Planes | None, ...]

    @property
    def size(self) -> int:
        return SMALL + sum(planes.nbytes for planes in self.planes if planes is not None)

    @property
    def family(self) -> tuple[int, int]:
        """Only blocks of one attempt and layout are joined."""
        return self.attempt, self.layout

    def run(self, con: sqlite3.Connection) -> None:
        spans = (self.level, self.first, self.last, self.records, self.first_step, self.last_step)
        blobs = (None if planes is None else planes.astype("<f4", copy=False).tobytes() for planes in self.planes)
        con.execute(BLOCK, (*spans, self.attempt, self.layout, to_json(self.scalars), *blobs))


@dataclass(slots=True)
class Gathering:
    """Up to `RADIX` blocks of one level, on the way to become one of the next; the blocks themselves are not kept."""

    count: int = 0
    sums: list[_Sums | None] = field(default_factory=lambda: [None] * len(QUANTITIES))
    scalars: dict[str, list[tuple[Span, int]]] = field(default_factory=dict)
    head: Block | None = None

    def add(self, block: Block) -> None:
        self.count += 1
        if self.head is None:
            self.head = Block(block.level, block.first, 0, 0, block.first_step, 0, *block.family, {}, ())
        self.head.last, self.head.last_step = block.last, block.last_step
        self.head.records += block.records
        for place, planes in enumerate(block.planes):
            if planes is not None:
                held = self.sums[place]
                with np.errstate(all="ignore"):  # infinities of both signs may meet
                    new = _Sums.of(planes, block.records)
                    self.sums[place] = new if held is None else held.with_(new)
        for name, span in block.scalars.items():
            self.scalars.setdefault(name, []).append((span, block.records))

    def block(self) -> Block:
        """What was gathered, as one block of the next level."""
        assert self.head is not None, "something was gathered"
        planes = tuple(None if held is None else held.planes() for held in self.sums)
        scalars = {name: _joined(spans) for name, spans in self.scalars.items()}
        return replace(self.head, level=self.head.level + 1, planes=planes, scalars=scalars)


@dataclass(slots=True)
class _Sums:
    """Running extremes and weighted sums: [sum][tensor] each."""

    least: Planes
    most: Planes
    total: NDArray[np.float64]
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, planes: Planes, records: int) -> _Sums:
        there = ~np.isnan(planes[:, 1])
        total = np.where(there, planes[:, 1] * np.float64(records), 0.0)
        return cls(planes[:, 0].copy(), planes[:, 2].copy(), total, there * float(records))

    def padded(self) -> _Sums:
        return _Sums(_padded(self.least), _padded(self.most), _padded(self.total), _padded(self.weight))

    def with_(self, new: _Sums) -> _Sums:
        if len(new.least) != len(self.least):
            return self.padded().with_(new.padded())
        np.fmin(self.least, new.least, out=self.least)
        np.fmax(self.most, new.most, out=self.most)
        self.total += new.total
        self.weight += new.weight
        return self

    def planes(self) -> Planes:
        with np.errstate(all="ignore"):
            mean = np.where(self.weight > 0, self.total / self.weight, np.nan)
            return np.stack([self.least, mean.astype(np.float32), self.most], axis=1)


class Pyramid:
    """Takes every record in order and gives the blocks that it completes.

    A change of layout or attempt closes all that is open, so a block never mixes them.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._levels: list[Gathering] = []  # of blocks of level 1, 2, ...
        self._family: tuple[int, int] | None = None

    def take(self, row: Row) -> list[Block]:
        """The blocks that this record completes, the finest first."""
        blocks = self.leave(row.family)
        self._family = row.family
        self._rows.append(row)
        if len(self._rows) == RADIX:
            blocks += self._up(self._reduced(), RADIX)
        return blocks

    def leave(self, family: tuple[int, int]) -> list[Block]:
        """The blocks that stay open no longer when the next record is of this `family`."""
        return [] if self._family in (None, family) else self.close()

    def amend(self, seq: int, scalars: Mapping[str, float]) -> None:
        """Scalars that came late, for a record that is in no block yet."""
        for row in self._rows:
            if row.seq == seq:
                row.scalars = {**row.scalars, **scalars}

    def close(self) -> list[Block]:
        """What is open, as blocks of fewer than `RADIX`, up to the one that stands for all."""
        blocks = self._up(self._reduced(), RADIX) if self._rows else []
        level = 0
        while level < len(self._levels):
            top = level == len(self._levels) - 1
            if self._levels[level].count > top:  # one block at the top stands for all
                blocks += self._up(self._taken(level), 1 << 30)
            level += 1
        self._levels, self._family = [], None
        return blocks

    def resume(self, con: sqlite3.Connection) -> list[Block]:
        """The blocks that a killed writer still owed the records in the file."""
        newest = con.execute("SELECT attempt, layout FROM record ORDER BY seq DESC LIMIT 1").fetchone()
        if newest is None:
            return []
        self._family = (int(newest[0]), int(newest[1]))
        other = "SELECT coalesce(max(seq), -1) FROM record WHERE (attempt, layout) != (?, ?)"
        covered = con.execute(other, newest).fetchone()[0]
        top = con.execute("SELECT coalesce(max(level), 0) FROM pyramid WHERE first > ?", (covered,)).fetchone()[0]
        self._levels = [Gathering() for _ in range(min(top, MOST))]
        for level in range(len(self._levels), 0, -1):
            for block in read(con, f"level = {level} AND first > {covered} ORDER BY first"):
                self._levels[level - 1].add(block)
                covered = block.last
        blocks = [block for row in _rows(con, covered) for block in self.take(row)]
        return blocks + self.close()

    def _up(self, block: Block, full: int) -> list[Block]:
        """The block, and those that it completes above itself."""
        blocks = [block]
        while True:
            if len(self._levels) < block.level:
                self._levels.append(Gathering())
            level = block.level - 1
            self._levels[level].add(block)
            if self._levels[level].count < full:
                return blocks
            block = self._taken(level)
            blocks.append(block)

    def _taken(self, level: int) -> Block:
        block, self._levels[level] = self._levels[level].block(), Gathering()
        return block

    def _reduced(self) -> Block:
        """The rows that wait, as a block of level 1."""
        rows, self._rows = self._rows, []
        planes = tuple(_planes([row.blobs[place] for row in rows], rows[0].width) for place in range(len(QUANTITIES)))
        names = dict.fromkeys(name for row in rows for name in row.scalars)
        spans = {
            name: _joined([((row.scalars[name],) * 3, 1) for row in rows if name in row.scalars]) for name in names
        }
        first, last = rows[0], rows[-1]
        return Block(1, first.seq, last.seq, len(rows), first.head[0], last.head[0], *first.family, spans, planes)


def read(con: sqlite3.Connection, where: str) -> Iterable[Block]:
    """Blocks of a file that is being written by this process, whole."""
    for row in con.execute(f"SELECT {READ} FROM pyramid WHERE {where}").fetchall():
        width = con.execute("SELECT count(*) FROM layout WHERE layout = ?", (row[7],)).fetchone()[0]
        scalars: dict[str, Span] = {name: tuple(map(float, span)) for name, span in json.loads(row[8]).items()}  # type: ignore[misc]
        planes = tuple(None if blob is None else np.frombuffer(blob, "<f4").reshape(-1, 3, width) for blob in row[9:])
        level, first, last, records, first_step, last_step, attempt, layout = row[:8]
        yield Block(level, first, last, records, first_step, last_step, attempt, layout, scalars, planes)


def _rows(con: sqlite3.Connection, after: int) -> Iterable[Row]:
    query = (
        'SELECT seq, step, attempt, epoch, wall, layout, scalars, weight, grad, "update" FROM record'
        " JOIN sums USING (seq) WHERE seq > ? ORDER BY seq"
    )
    for seq, step, attempt, epoch, wall, layout, scalars, *blobs in con.execute(query, (after,)):
        numbers = {name: float(value) for name, value in json.loads(scalars).items()}
        width = con.execute("SELECT count(*) FROM layout WHERE layout = ?", (layout,)).fetchone()[0]
        yield Row(seq, (step, attempt, epoch, wall, layout), numbers, tuple(blobs), width)


def _planes(blobs: Sequence[bytes | None], width: int) -> Planes | None:
    """[sum][min, mean, max][tensor] of matrices [sum][tensor]."""
    there = [blob for blob in blobs if blob is not None]
    if not there or not width:
        return None
    values = np.full((len(there), max(map(len, there)) // 8 // width, width), np.nan, np.float32)
    with np.errstate(all="ignore"):
        for rows, blob in zip(values, there, strict=True):
            exact = np.frombuffer(blob, "<f8").reshape(-1, width)
            rows[: len(exact)] = exact
            rows[SQUARES] = np.sqrt(exact[SQUARES])  # before it is rounded: a square may be too large for float32
        out = np.empty((values.shape[1], 3, width), np.float32)
        np.fmin.reduce(values, axis=0, out=out[:, 0])
        np.fmax.reduce(values, axis=0, out=out[:, 2])
        np.add.reduce(values, axis=0, out=out[:, 1])
        out[:, 1] /= len(values)
        if np.isnan(out[:, 1]).any():
            absent = np.isnan(values)
            out[:, 1] = np.where(absent, 0, values).sum(axis=0) / (len(values) - absent.sum(axis=0))
        np.clip(out[:, 1], out[:, 0], out[:, 2], out=out[:, 1])  # rounding may put it beside the extremes
        return out


def _joined(spans: Sequence[tuple[Sequence[float], int]]) -> Span:
    """Of (least, mean, most) and how often each counts; NaN is left out."""
    known = [(span, records) for span, records in spans if span[1] == span[1]]
    if not known:
        return (float("nan"),) * 3
    mean = sum(span[1] * records for span, records in known) / sum(records for _, records in known)
    return min(span[0] for span, _ in known), mean, max(span[2] for span, _ in known)


def _padded(rows: NDArray[Any]) -> NDArray[Any]:
    """With the row that a shorter matrix lacks: NaN, or no weight."""
    missing = len(SUMS) - len(rows)
    fill = 0.0 if rows.dtype == np.float64 else np.nan
    return np.concatenate([rows, np.full((missing, *rows.shape[1:]), fill, rows.dtype)])
