"""Keeps a recording within its budget: older records are thinned, older blocks go where a coarser one stands for them.

Of the budget, the records take about two thirds. The newer half of the records that fit stays whole; of the older ones
every s-th is kept, s a power of two that grows with the run, and the first of each attempt. The blocks of the pyramid
take the rest: the fuller a level, the sooner its oldest go, so that the past is seen ever more coarsely, never lost.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from normkit.store.jobs import META, to_json

BUDGET = 256 << 20  # bytes, where nothing else is said
FULL = 0.8  # of the budget is for the file; its WAL and what is just being written may take the rest
RECORDS, BLOCKS = 0.65, 0.3  # shares of the file
AT_ONCE = 1 / 64  # of the budget is rewritten in one transaction
LEAST = 16  # records that are kept whatever the budget
ROOM = 0.75  # a level or the records are cut to this share of what they may hold, so that it lasts a while
COARSE = """
    SELECT first, last FROM pyramid AS coarse WHERE level = ? AND NOT EXISTS (
      SELECT 1 FROM (SELECT attempt, min(step) AS step FROM record GROUP BY attempt) AS later
      WHERE later.attempt > coarse.attempt AND later.step > coarse.first_step AND later.step <= coarse.last_step
    ) ORDER BY first
"""  # those that a later attempt replaced in part say nothing any more, what they were made of does
BLOCK_OF_ROW = 1.5  # a block's bytes: three float32 for each float64


@dataclass(slots=True)
class Retention:
    """The budget of one file in bytes; None is no limit."""

    budget: int | None
    _stride: int = 1
    size: int = 0  # as a job it holds nothing
    _enough: float = 0  # bytes at which it is worth while to try again
    _more: bool = False

    def due(self, con: sqlite3.Connection) -> bool:
        """Has the file grown out of its budget, or is there more to be done?"""
        return self._more or (self.budget is not None and _used(con) > max(FULL * self.budget, self._enough))

    def run(self, con: sqlite3.Connection) -> None:
        """Make some room, inside a transaction of few pages: all of them go through the WAL."""
        row = _bytes_of_a_record(con)
        share = FULL * (self.budget or 0)
        dirty = min(row, 2 * con.execute("PRAGMA page_size").fetchone()[0])  # bytes that a record's removal rewrites
        self._more = self._thin_records(
            con, max(LEAST, int(share * RECORDS / row)), max(1, int(AT_ONCE * share / dirty))
        )
        if not self._more:
            _drop_blocks(con, max(LEAST, int(share * BLOCKS / (BLOCK_OF_ROW * row))))
        self._enough = _used(con) + 2 * AT_ONCE * share

    def _thin_records(self, con: sqlite3.Connection, most: int, at_once: int) -> bool:
        """Keep `most` / 2 of the newest, and at most `most` / 4 of the rest; True where more is to be done."""
        covered = con.execute("SELECT coalesce(max(last), -1) FROM pyramid WHERE level = 1").fetchone()[0]
        newest = con.execute("SELECT seq, step FROM record ORDER BY seq DESC LIMIT 1 OFFSET ?", (most // 2,)).fetchone()
        if newest is None:
            return False
        cut, step = min(newest[0], covered + 1), newest[1]
        firsts = {seq for (seq,) in con.execute("SELECT min(seq) FROM record GROUP BY attempt")}
        old = [seq for (seq,) in con.execute("SELECT seq FROM record WHERE seq < ?", (cut,))]
        kept = json.loads((con.execute("SELECT value FROM meta WHERE key = 'thinned'").fetchone() or ("{}",))[0])
        self._stride = max(self._stride, int(kept.get("stride", 1)))
        while sum(seq % self._stride == 0 for seq in old) > most // 4:
            self._stride *= 2
        gone = [(seq,) for seq in old if seq % self._stride and seq not in firsts]
        if gone:
            con.executemany("DELETE FROM sums WHERE seq = ?", gone[:at_once])
            con.executemany("DELETE FROM record WHERE seq = ?", gone[:at_once])
            con.execute(META, ("thinned", to_json({"stride": self._stride, "before": step})))
        return len(gone) > at_once


def _used(con: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    page, pages, free = (
        con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return int(page * (pages - free))


def _bytes_of_a_record(con: sqlite3.Connection) -> float:
    """What one takes all told: pages that are not full, and the small tables, count too."""
    records, blocks = (con.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("record", "pyramid"))
    return float(_used(con) / max(1.0, records + BLOCK_OF_ROW * blocks))


def _drop_blocks(con: sqlite3.Connection, most: int) -> None:
    """The oldest blocks of the fullest levels, as long as a coarser block stands for them."""
    count = "SELECT level, count(*) FROM pyramid GROUP BY level"
    levels = dict(con.execute(count).fetchall())
    while sum(levels.values()) > most and levels:
        level = max(levels, key=lambda level: levels[level])
        gone = _oldest(con, level, max(1, int(levels[level] * (1 - ROOM))))
        con.executemany("DELETE FROM pyramid WHERE id = ?", gone)
        now = dict(con.execute(count).fetchall())
        levels = {each: now[each] for each in levels if each in now and (gone or each != level)}


def _oldest(con: sqlite3.Connection, level: int, least: int) -> list[tuple[int]]:
    """Ids of about `least` blocks of a level, and of all finer ones: what a coarser block was made of goes at once."""
    gone: list[tuple[int]] = []
    finer = "SELECT id FROM pyramid WHERE level <= ? AND first BETWEEN ? AND ?"
    for ends in con.execute(COARSE, (level + 1,)).fetchall():
        if len(gone) >= least:
            break
        gone += con.execute(finer, (level, *ends)).fetchall()
    return gone
