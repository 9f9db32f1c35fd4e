"""Where a recording goes, and its writer: of a new file, or of the one that a resumed run goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from normkit.errors import FileError, ModelError
from normkit.recording.past import Past
from normkit.recording.search import find
from normkit.recording.terms import Terms
from normkit.store.paths import new_path, shown
from normkit.store.retention import LEAST
from normkit.store.writer import Writer

# Bytes of a column in a record of three quantities, with the blocks of the pyramid and what pages waste.
ROW = 20 * 8 * 3


def place(terms: Terms) -> tuple[Past | None, Path, str]:
    """The recording to go on with, if any; the path of it or of a new one; what is to be said of that, or nothing."""
    past = find(terms.resume, terms.to)
    if past is not None:
        return past, past.path, ""
    path, wanted = new_path(terms.to)
    return None, path, "" if path == wanted else f"{shown(wanted)} exists and is kept; recording to {shown(path)}"


def open_writer(
    terms: Terms, past: Past | None, path: Path, meta: Mapping[str, Any], names: Sequence[str]
) -> tuple[Writer, Past | None]:
    """A writer for `path`, and the past it goes on with. With resume="auto" what does not fit is left alone.

    Raises: ModelError where the recording is one of another model. FileError where it cannot be written, or another
    process was quicker to resume it.
    """
    if past is not None and past.fits(names):
        try:
            return Writer(path, meta, resume=True, claim=past.claim, budget=terms.bytes), past
        except FileError:
            if terms.resume is True:
                raise
    elif past is not None and terms.resume is True:
        raise ModelError(
            f"{shown(path)!r} holds none of this model's {len(names)} tensors; give another path by to=, or leave "
            "resume= out"
        )
    return Writer(path if past is None else new_path(terms.to).path, meta, budget=terms.bytes), None


def too_small(budget: int | None, columns: int) -> str:
    """What to say of a budget in which records of so many columns find no room; nothing where they do."""
    least = LEAST * columns * ROW
    if budget is None or budget >= least:
        return ""
    return f"a budget of {budget:,} bytes is too small for {columns:,} columns: the file may take {least:,}"
