"""One recording file on disk while it is written: begun, given its page size, filled, finished."""

from __future__ import annotations

import ctypes
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from normkit.errors import FileError
from normkit.store import jobs, schema
from normkit.types import QUANTITIES

# Every table takes at least one page, and a row ends in a page of its own: small pages keep a small file small, large
# ones save some CPU (1000 tensors: 64 KiB pages take 10 % less than 16 KiB). A row of four pages wastes little.
PAGES = (64 << 10, 32 << 10, 16 << 10, 8 << 10, 4 << 10)
PAGES_OF_A_ROW = 4
WAL_BYTES = 16 << 20  # the WAL is folded into the file when it has grown to this


def begin(path: Path, meta: Sequence[tuple[str, str]]) -> sqlite3.Connection:
    """A new recording at `path`, which must be absent or empty, as a connection that any thread may use."""
    try:
        with path.open("ab") as opened:
            if opened.tell():
                raise FileError(f"{str(path)!r} holds something already; a recording begins in a file of its own")
        con = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _create(con, meta)
        except sqlite3.Error:
            con.close()
            raise
    except FileError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise FileError(f"the recording {str(path)!r} cannot be begun ({error}); give another path by to=") from None
    _keep(con)
    return con


def _create(con: sqlite3.Connection, meta: Sequence[tuple[str, str]]) -> None:
    con.execute(f"PRAGMA page_size={PAGES[-1]}")
    con.execute("PRAGMA synchronous=OFF")  # only until there is something to lose
    con.execute("BEGIN")
    con.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
    con.execute(f"PRAGMA user_version={schema.VERSION}")
    for statement in schema.statements():
        con.execute(statement)
    con.executemany(jobs.META, meta)
    con.execute("COMMIT")
    _wal(con)


def _keep(con: sqlite3.Connection) -> None:
    """Let no one but `finish` close it: a forked child that dropped its copy would fold the parent's WAL under it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(con))


def _wal(con: sqlite3.Connection) -> None:
    con.execute("PRAGMA journal_mode=WAL")
    con.execute("PRAGMA synchronous=NORMAL")
    page = con.execute("PRAGMA page_size").fetchone()[0]
    con.execute(f"PRAGMA wal_autocheckpoint={WAL_BYTES // page}")


def write(con: sqlite3.Connection, batch: Sequence[jobs.Job]) -> None:
    """All jobs of the batch, or none, in one transaction."""
    width = max((job.width for job in batch if isinstance(job, jobs.Insert)), default=0)
    if width:
        _fit_pages(con, width)
    con.execute("BEGIN IMMEDIATE")
    try:
        for job in batch:
            job.run(con)
        con.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # where SQLite itself rolled back there is nothing left to do
            con.execute("ROLLBACK")
        raise


def _fit_pages(con: sqlite3.Connection, width: int) -> None:
    """Before the first record: the page size that suits a layout's rows, by rebuilding the still empty file."""
    row = width * 8 * (6 + 7 * (len(QUANTITIES) - 1))
    wanted = next((page for page in PAGES if row >= PAGES_OF_A_ROW * page), PAGES[-1])
    begun = con.execute("SELECT EXISTS (SELECT 1 FROM record)").fetchone()[0]
    if begun or con.execute("PRAGMA page_size").fetchone()[0] >= wanted:
        return
    if _leave_wal(con):
        con.execute(f"PRAGMA page_size={wanted}")
        con.execute("VACUUM")
    _wal(con)


def _leave_wal(con: sqlite3.Connection) -> bool:
    """Fold the WAL into the file and do without; False where somebody is reading it now."""
    con.execute("PRAGMA busy_timeout=100")
    try:
        con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        con.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError:
        return False
    finally:
        con.execute("PRAGMA busy_timeout=5000")
    return True


def finish(con: sqlite3.Connection) -> None:
    """Fold the WAL and close; where someone is reading, the last one to leave folds it."""
    with suppress(sqlite3.Error):
        _leave_wal(con)
    with suppress(sqlite3.Error):
        con.close()
