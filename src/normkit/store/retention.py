"""Keeps a recording within its budget: older records are thinned, older blocks go where a coarser one stands for them.

Of the budget, the records take about two thirds. The newer half of the records that fit stays whole; of the older ones
every s-th is kept, s a power of two that grows with the run, and the first of each attempt. The blocks of the pyramid
take the rest: the fuller a level, the sooner its oldest go, so that the past is seen ever more coarsely, never lost.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from normkit.store.jobs import META, SMALL, to_json

BUDGET = 256 << 20  # bytes, where nothing else is said
FULL = 0.87  # of the budget is for the file; its WAL and what is just being written may take the rest
RECORDS, BLOCKS = 0.65, 0.3  # shares of the file
LEAST = 32  # records that are kept whatever the budget
ROOM = 0.75  # a level or the records are cut to this share of what they may hold, so that it lasts a while
BLOCK_OF_ROW = 1.5  # a block's bytes: three float32 for each float64


@dataclass(slots=True)
class Retention:
    """The budget of one file in bytes; None is no limit."""

    budget: int | None
    _stride: int = 1
    size: int = 0  # as a job it holds nothing
    _enough: float = 0  # bytes at which it is worth while to try again

    def due(self, con: sqlite3.Connection) -> bool:
        """Has the file grown out of its budget?"""
        return self.budget is not None and _used(con) > max(FULL * self.budget, self._enough)

    def run(self, con: sqlite3.Connection) -> None:
        """Make room, inside a transaction."""
        row = _bytes_of_a_record(con)
        share = FULL * (self.budget or 0)
        self._thin_records(con, max(LEAST, int(share * RECORDS / row)))
        _drop_blocks(con, max(LEAST, int(share * BLOCKS / (BLOCK_OF_ROW * row))))
        self._enough = _used(con) + share / LEAST

    def _thin_records(self, con: sqlite3.Connection, most: int) -> None:
        """Keep `most` / 2 of the newest, and at most `most` / 4 of the rest."""
        covered = con.execute("SELECT coalesce(max(last), -1) FROM pyramid WHERE level = 1").fetchone()[0]
        newest = con.execute("SELECT seq, step FROM record ORDER BY seq DESC LIMIT 1 OFFSET ?", (most // 2,)).fetchone()
        if newest is None:
            return
        cut, step = min(newest[0], covered + 1), newest[1]
        firsts = {seq for (seq,) in con.execute("SELECT min(seq) FROM record GROUP BY attempt")}
        old = [seq for (seq,) in con.execute("SELECT seq FROM record WHERE seq < ?", (cut,))]
        kept = json.loads((con.execute("SELECT value FROM meta WHERE key = 'thinned'").fetchone() or ("{}",))[0])
        self._stride = max(self._stride, int(kept.get("stride", 1)))
        while sum(seq % self._stride == 0 for seq in old) > most // 4:
            self._stride *= 2
        gone = [(seq,) for seq in old if seq % self._stride and seq not in firsts]
        if gone:
            con.executemany("DELETE FROM sums WHERE seq = ?", gone)
            con.executemany("DELETE FROM record WHERE seq = ?", gone)
            con.execute(META, ("thinned", to_json({"stride": self._stride, "before": step})))


def _used(con: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    page, pages, free = (
        con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return int(page * (pages - free))


def _bytes_of_a_record(con: sqlite3.Connection) -> int:
    query = 'SELECT ifnull(length(weight), 0) + ifnull(length(grad), 0) + ifnull(length("update"), 0) FROM sums'
    found = con.execute(f"{query} ORDER BY seq DESC LIMIT 1").fetchone()
    return SMALL + (found[0] if found else 0)


def _drop_blocks(con: sqlite3.Connection, most: int) -> None:
    """The oldest blocks of the fullest levels, as long as a coarser block stands for them."""
    levels = dict(con.execute("SELECT level, count(*) FROM pyramid GROUP BY level").fetchall())
    while sum(levels.values()) > most and levels:
        level = max(levels, key=lambda level: levels[level])
        gone = con.execute(
            "SELECT id FROM pyramid AS fine WHERE level = ? AND EXISTS (SELECT 1 FROM pyramid AS coarse"
            " WHERE coarse.level = ? AND coarse.first <= fine.first AND coarse.last >= fine.last)"
            " ORDER BY first LIMIT ?",
            (level, level + 1, max(1, int(levels[level] * (1 - ROOM)))),
        ).fetchall()
        con.executemany("DELETE FROM pyramid WHERE id = ?", gone)
        levels[level] -= len(gone)
        if not gone:
            del levels[level]  # nothing coarser stands for these
