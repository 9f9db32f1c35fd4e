"""Where the processes of one `normkit run` note what they record, so that the first can say so at the end."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Notes:
    """What the processes noted, in the order of noting: the recordings, and why there is none where there could be."""

    recorded: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def after(self, path: Path | None, refused: str | None) -> Notes:
        """The same behind what the process that reads them knows by itself."""
        own = Notes((str(path),) if path else (), (refused,) if refused else ())
        return Notes(own.recorded + self.recorded, own.refused + self.refused)


@contextlib.contextmanager
def ledger() -> Iterator[str]:
    """A name for a ledger; the first process that notes something makes it, and at the end of the run it goes."""
    path, owner = os.path.join(tempfile.gettempdir(), f"normkit-{uuid.uuid4().hex}.ledger"), os.getpid()
    try:
        yield path
    finally:
        if os.getpid() == owner:  # not in a child that was forked meanwhile
            with contextlib.suppress(OSError):
                os.unlink(path)


def note(path: str | None, kind: Literal["recorded", "refused"], text: str) -> None:
    """Add one line, whole, also where several processes write at once."""
    if path is None:
        return
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, (json.dumps([kind, text]) + "\n").encode())
        finally:
            os.close(handle)


def noted(path: str | None) -> Notes:
    """What stands in the ledger by now."""
    try:
        with open(path or os.devnull, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.endswith("]\n")]
    except (OSError, ValueError):
        return Notes()
    kinds = {kind: tuple(dict.fromkeys(text for each, text in lines if each == kind)) for kind in Notes.__annotations__}
    return Notes(**kinds)
