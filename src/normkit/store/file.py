"""One recording file on disk while it is written: begun or gone on with, given its page size, filled, finished."""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from normkit.errors import FileError
from normkit.store import jobs, schema
from normkit.store.place import is_remote
from normkit.types import QUANTITIES

# Every table takes at least one page, and a row ends in a page of its own: small pages keep a small file small, large
# ones save some CPU (1000 tensors: 64 KiB pages take 10 % less than 16 KiB). A row of four pages wastes little.
PAGES = (64 << 10, 32 << 10, 16 << 10, 8 << 10, 4 << 10)
PAGES_OF_A_ROW = 4
WAL_BYTES = 16 << 20

_live: set[tuple[int, int]] = set()  # device and inode of the files that this process is writing


def is_live(path: str | os.PathLike[str]) -> bool:
    """Is this process writing the file?

    Who opens and closes such a file, other than through SQLite, takes away the locks that SQLite holds on it: the
    kernel gives them to a process, not to a descriptor.
    """
    return bool(_live) and _identity(path) in _live


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class File:
    """A recording open for writing; any thread may use it, one at a time.

    The journal is a WAL, so that others read while it is written; on a network file system, where processes share no
    memory, a rollback journal.
    """

    def __init__(self, path: Path, con: sqlite3.Connection, wal_bytes: int) -> None:
        self.path = path
        self._log: tuple[int, int] | None = None  # the WAL's identity, where there is one
        self._wal_bytes = wal_bytes  # the WAL is folded into the file when it has grown to this
        self._use(con)
        self.next_numbers = self._next_numbers()  # of a further record, attempt, tensor and layout
        self._log = self._log_found()  # to read made it
        self._found = _identity(path)
        if self._found is not None:
            _live.add(self._found)

    @property
    def lost(self) -> bool:
        """Was the file taken away, or another put in its place?"""
        return _identity(self.path) != self._found

    def _next_numbers(self) -> tuple[int, int, int, int]:
        tables = (("seq", "record"), ("attempt", "record"), ("id", "tensor"), ("layout", "layout"))
        seq, attempt, tensor, layout = (
            self.con.execute(f"SELECT coalesce(max({column}), -1) + 1 FROM {table}").fetchone()[0]
            for column, table in tables
        )
        return seq, attempt, tensor, layout

    def write(self, batch: Sequence[jobs.Job]) -> None:
        """All jobs of the batch, or none, in one transaction."""
        if self._log != self._log_found() and not self.lost:
            self._open_again()
        if width := max((job.width for job in batch if isinstance(job, jobs.Insert)), default=0):
            self._fit_pages(width)
        self.con.execute("BEGIN IMMEDIATE")
        try:
            for job in batch:
                job.run(self.con)
            self.con.execute("COMMIT")
            self._log = self._log or self._log_found()  # the first transaction makes it
        except BaseException:
            with suppress(sqlite3.Error):  # where SQLite itself rolled back there is nothing left to do
                self.con.execute("ROLLBACK")
            raise

    def finish(self) -> None:
        """Fold the WAL and close; where someone is reading, the last one to leave folds it."""
        with suppress(sqlite3.Error):
            self._leave_wal()
        with suppress(sqlite3.Error):
            self.con.close()
        if self._found is not None:
            _live.discard(self._found)

    def _use(self, con: sqlite3.Connection) -> None:
        # No one but `finish` may close it: a forked child that dropped its copy would fold the parent's WAL under it.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(con))
        self.con = con
        self._journal()

    def _journal(self) -> None:
        if is_remote(self.path) or self._set_journal("WAL") != "wal":
            self._set_journal("TRUNCATE")
        self.con.execute("PRAGMA synchronous=NORMAL")
        self.con.execute("PRAGMA secure_delete=OFF")
        page = self.con.execute("PRAGMA page_size").fetchone()[0]
        self.con.execute(f"PRAGMA wal_autocheckpoint={max(1, self._wal_bytes // page)}")
        self._log = self._log_found()

    def _set_journal(self, mode: str) -> str:
        return str(self.con.execute(f"PRAGMA journal_mode={mode}").fetchone()[0])

    def _log_found(self) -> tuple[int, int] | None:
        return _identity(f"{self.path}-wal")

    def _open_again(self) -> None:
        """The WAL was folded and removed by somebody who could not see that this process uses it: begin a new one."""
        self.con.close()
        self._use(_connected(self.path))

    def _fit_pages(self, width: int) -> None:
        """Before the first record: the page size that suits a layout's rows, by rebuilding the still empty file."""
        row = width * 8 * (6 + 7 * (len(QUANTITIES) - 1))
        wanted = next((page for page in PAGES if row >= PAGES_OF_A_ROW * page), PAGES[-1])
        begun = self.con.execute("SELECT EXISTS (SELECT 1 FROM record)").fetchone()[0]
        if begun or self.con.execute("PRAGMA page_size").fetchone()[0] >= wanted:
            return
        if self._leave_wal():
            self.con.execute(f"PRAGMA page_size={wanted}")
            self.con.execute("VACUUM")
        self._journal()

    def _leave_wal(self) -> bool:
        """Fold the WAL into the file and do without; False where somebody is reading it now."""
        self.con.execute("PRAGMA busy_timeout=100")
        try:
            self.con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.con.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:
            return False
        finally:
            self.con.execute("PRAGMA busy_timeout=5000")
        return True


def begin(path: Path, meta: Mapping[str, object], wal_bytes: int = WAL_BYTES) -> File:
    """A new recording at `path`, which must be absent or empty. Raises: FileError."""
    try:
        with path.open("ab") as opened:
            if opened.tell():
                raise FileError(f"{str(path)!r} holds something already; a recording begins in a file of its own")
        con = _connected(path)
        try:
            _create(con, meta)
            return File(path, con, wal_bytes)
        except sqlite3.Error:
            con.close()
            for beside in ("-journal", "-wal", "-shm"):
                with suppress(OSError):
                    os.unlink(f"{path}{beside}")
            raise
    except FileError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise FileError(f"the recording {str(path)!r} cannot be begun ({error}); give another path by to=") from None


def reopen(path: Path, meta: Mapping[str, object], wal_bytes: int = WAL_BYTES, claim: str | None = None) -> File:
    """The recording at `path`, to go on with: in the newest format, without the marks of its end.

    `claim` is the mark of the writer before this one. Raises: FileError, also where another writer was quicker.
    """
    try:
        con = _connected(path)
        try:
            _check(con, path)
            _renew(con, meta, path, claim)
            return File(path, con, wal_bytes)
        except BaseException:
            con.close()
            raise
    except (OSError, sqlite3.Error) as error:
        raise FileError(f"the recording {str(path)!r} cannot be resumed ({error})") from None


def _connected(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"  # never make one where there is none
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _create(con: sqlite3.Connection, meta: Mapping[str, object]) -> None:
    con.execute(f"PRAGMA page_size={PAGES[-1]}")
    con.execute("PRAGMA synchronous=OFF")  # only until there is something to lose
    con.execute("BEGIN")
    con.execute(f"PRAGMA application_id={schema.APPLICATION_ID}")
    con.execute(f"PRAGMA user_version={schema.VERSION}")
    for statement in schema.statements():
        con.execute(statement)
    con.executemany(jobs.META, jobs.meta_rows(meta))
    con.execute("COMMIT")


def _check(con: sqlite3.Connection, path: Path) -> None:
    if con.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        raise FileError(f"{str(path)!r} is not a normkit recording; give another path by to=, or leave resume= out")
    version = con.execute("PRAGMA user_version").fetchone()[0]
    if version > schema.VERSION:
        raise FileError(
            f"{str(path)!r} was written by a newer normkit: its format is {version}, "
            f"this one writes {schema.VERSION}; update normkit"
        )


def _renew(con: sqlite3.Connection, meta: Mapping[str, object], path: Path, claim: str | None) -> None:
    con.execute("BEGIN IMMEDIATE")
    found = con.execute("SELECT value FROM meta WHERE key = 'claim'").fetchone()
    if claim is not None and found is not None and json.loads(found[0]) != claim:
        raise FileError(f"{str(path)!r} was just taken over by another process; give another path by to=")
    for statement in schema.upgrade(con.execute("PRAGMA user_version").fetchone()[0]):
        con.execute(statement)
    con.execute("DELETE FROM finding")
    con.execute("DELETE FROM meta WHERE key IN ('finished', 'end', 'findings', 'error')")
    con.executemany(jobs.META, jobs.meta_rows(meta))
    con.execute("COMMIT")
