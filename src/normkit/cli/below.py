"""A Python process below `normkit run`: it was told by an environment variable what to record, and where to note it."""

from __future__ import annotations

import os

from normkit.cli.watch import Watch

TYPE_CHECKING = False  # nothing is imported here that takes time: most processes never need it
if TYPE_CHECKING:
    from normkit.recording.options import Options

VARIABLE = "NORMKIT_RUN"


def watch() -> None:
    """As the process starts: record what it trains, if it ever imports a framework."""
    if VARIABLE in os.environ:
        Watch(_told)


def told() -> Options | None:
    """What a `normkit run` above this process told it; None where there is none, or nothing that makes sense."""
    try:
        return _told()
    except (KeyError, TypeError, ValueError):
        return None


def _told() -> Options:
    from normkit.recording.options import Options

    return Options.of(os.environ[VARIABLE])
