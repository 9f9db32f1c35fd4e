"""Which recording is meant where none is named: the newest."""

from __future__ import annotations

import os
from pathlib import Path

from normkit.errors import FileError
from normkit.store.paths import FOLDER, SUFFIX


def latest(folder: str | os.PathLike[str] = FOLDER) -> Path:
    """The recording in `folder` that was written to last.

    Raises: FileError if there is none.
    """
    found = [(_written(path), path) for path in Path(folder).glob(f"*{SUFFIX}") if path.is_file()]
    begun = [(when, path) for when, path in found if when is not None]
    if not begun:
        raise FileError(f"there is no recording in {os.fspath(folder)!r}; `normkit run script.py` makes one")
    return max(begun)[1]


def _written(path: Path) -> float | None:
    """When the file or its WAL was last written; None for an empty file, which is only a reserved name."""
    try:
        stats = path.stat()
        wal = path.with_name(path.name + "-wal")
        times = [stats.st_mtime, wal.stat().st_mtime if wal.exists() else 0.0]
    except OSError:
        return None
    return max(times) if stats.st_size else None
