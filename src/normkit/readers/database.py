"""A recording opened for reading: live, finished, on a read-only mount, or refused with one sentence.

A connection lives as long as one question. Between questions the file is free, so that its writer can finish it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normkit.errors import FileError
from normkit.store import schema
from normkit.store.file import is_live

MAGIC = b"SQLite format 3\0"
UNWRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


class DamageError(Exception):
    """A fact about a file that no recording can have; `opened` says which file."""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A snapshot of the file at `path`; whatever SQLite cannot do inside becomes a FileError naming the file."""
    if not is_live(path):  # to open and close it here would take away the locks of its writer in this process
        _check_header(path)
    try:
        con = _connect(path)
        try:
            con.execute("BEGIN")
            _check_schema(con, path)
            yield con
        finally:
            con.close()
    except DamageError as damage:
        raise FileError(f"{str(path)!r} is damaged: {damage}") from None
    except (sqlite3.Error, UnicodeError) as error:  # SQLite quotes a damaged schema in its messages
        raise FileError(f"{str(path)!r} cannot be read as a recording: {error}") from None


def _check_header(path: Path) -> None:
    if os.path.isdir(path):
        raise FileError(f"{str(path)!r} is a directory; give a recording in it, such as {str(path / 'mine.norms')!r}")
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        raise FileError(f"there is no recording at {str(path)!r}; `normkit run script.py` makes one") from None
    except (OSError, ValueError) as error:
        raise FileError(f"{str(path)!r} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if not header:
        raise FileError(f"{str(path)!r} is empty: nothing was recorded in it yet")
    if not header.startswith(MAGIC):
        raise FileError(f"{str(path)!r} is not a normkit recording: it begins with {header[:16]!r}")
    if header[68:72] != schema.APPLICATION_ID.to_bytes(4, "big"):
        raise FileError(f"{str(path)!r} is an SQLite file, but not a normkit recording")
    _check_length(path, header)


def _check_length(path: Path, header: bytes) -> None:
    """SQLite reads the missing end of a last page as zeros; they are not what was recorded."""
    page = int.from_bytes(header[16:18], "big")
    expected = int.from_bytes(header[28:32], "big") * (page if page > 1 else 1 << 16)
    unfinished = any(os.path.exists(f"{path}{end}") for end in ("-wal", "-journal"))
    found = path.stat().st_size  # after the look at the WAL: where that is gone, the file is whole
    if found < expected and not unfinished:
        raise FileError(f"{str(path)!r} is cut off: it has {found} bytes of {expected}")


def _connect(path: Path) -> sqlite3.Connection:
    """Read and write where possible (a live WAL needs it), but only to read."""
    uri = path.absolute().as_uri()
    try:
        return _prepared(f"{uri}?mode=rw")
    except sqlite3.OperationalError as error:
        wal = path.with_name(path.name + "-wal")
        if error.sqlite_errorcode & 0xFF not in UNWRITABLE or (wal.exists() and wal.stat().st_size):
            raise
    return _prepared(f"{uri}?immutable=1")


def _prepared(uri: str) -> sqlite3.Connection:
    con = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        con.text_factory = lambda raw: raw.decode("utf-8", "replace")  # names are data
        con.execute("PRAGMA query_only=1")
        con.execute("PRAGMA trusted_schema=0")
        con.execute("SELECT 1 FROM sqlite_master").fetchone()  # the first touch of the file
    except BaseException:
        con.close()
        raise
    return con


def _check_schema(con: sqlite3.Connection, path: Path) -> None:
    version = con.execute("PRAGMA user_version").fetchone()[0]
    if version > schema.VERSION:
        raise FileError(
            f"{str(path)!r} was written by a newer normkit: its format is {version}, "
            f"this one reads up to {schema.VERSION}; update normkit"
        )
    # Views, virtual tables and computed columns could make a small file say anything at any length.
    real = {name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0")}
    for table in schema.TABLES.get(version, schema.FIRST):
        columns = con.execute(f"PRAGMA table_xinfo({table})").fetchall()
        if table not in real or any(column[6] for column in columns):
            raise DamageError(f"it has no plain table {table!r}")
