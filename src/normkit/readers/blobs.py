"""The matrices of sums of a recording, read only as far as a question needs them."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from normkit.readers.database import DamageError
from normkit.readers.index import Index, Layout
from normkit.store.schema import COLUMNS
from normkit.types import SUMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from normkit.types import Matrix

ITEM = 8  # bytes of a float64


def check_counts(index: Index, size_on_disk: int) -> None:
    """Refuse to allocate what no file of this size can fill: an honest one has 6 rows and at least one quantity."""
    if len(index.steps) * len(index.params) * ITEM > 64 * size_on_disk + (64 << 20):
        raise DamageError(f"it names {len(index.steps)} records x {len(index.params)} tensors in {size_on_disk} bytes")


def check_room(records: int, columns: int, con: sqlite3.Connection) -> None:
    """The same for what one question is about to allocate."""
    size = math.prod(con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count"))
    if records * columns * ITEM > 64 * size + (64 << 20):
        raise DamageError(f"it names {records} records x {columns} tensors in {size} bytes")


def size_on_disk(path: str | os.PathLike[str]) -> int:
    """Bytes of the file and of its WAL."""
    return sum(os.stat(name).st_size for name in (path, f"{os.fspath(path)}-wal") if os.path.exists(name))


def read_rows(
    con: sqlite3.Connection,
    number: int,
    layout: Layout,
    seqs: NDArray[np.int64],
    *,
    quantity: str,
    names: Sequence[str],
) -> Matrix:
    """Some rows of the sums of all records `seqs` of one layout, NaN where there are none: [names][seqs][columns].

    SQLite cuts the rows out (`substr`), from the first to the last that is needed.
    """
    wanted = [SUMS.index(name) for name in names]
    first, stop, line = min(wanted), max(wanted) + 1, layout.width * ITEM
    out = np.full((len(names), len(seqs), layout.width), np.nan)
    place = {seq: i for i, seq in enumerate(seqs.tolist())}
    column = COLUMNS[quantity]
    query = (
        f"SELECT seq, step, length({column}), substr({column}, ?, ?) FROM record JOIN sums USING (seq)"
        f" WHERE layout = ? AND {column} IS NOT NULL"
    )
    for seq, step, length, part in con.execute(query, (first * line + 1, (stop - first) * line, number)):
        if seq not in place:
            continue  # superseded, or written after the index was read
        what = f"the {quantity} sums of record {seq} (step {step})"
        flat = _checked(
            b"" if length == 0 else part, length, layout.width, what
        )  # SQLite cuts NULL out of an empty blob
        rows = flat.reshape(-1, max(layout.width, 1))
        for i, row in enumerate(wanted):
            if row - first < len(rows):
                out[i, place[seq]] = rows[row - first]
    return out


def read_record(con: sqlite3.Connection, seq: int, layout: Layout) -> dict[str, Matrix]:
    """All sums of one record by quantity: [sum][tensor], always seven rows, the last NaN where there is no dot."""
    found = con.execute(f"SELECT {', '.join(COLUMNS.values())} FROM sums WHERE seq = ?", (seq,)).fetchone() or ()
    read = {}
    for quantity, blob in zip(COLUMNS, found, strict=False):
        if blob is not None:
            length = len(blob) if isinstance(blob, bytes) else -1
            flat = _checked(blob, length, layout.width, f"the {quantity} sums of record {seq}")
            full = np.full((len(SUMS), layout.width), np.nan)
            full.reshape(-1)[: flat.size] = flat
            read[quantity] = full[:, layout.positions]
    return read


def _checked(part: object, length: int, width: int, what: str) -> NDArray[np.float64]:
    sizes = (6 * width * ITEM, 7 * width * ITEM)
    if not isinstance(part, bytes) or length not in sizes:
        raise DamageError(f"{what} take {length} bytes where {sizes[0]} or {sizes[1]} were expected")
    return np.frombuffer(part, dtype="<f8")
