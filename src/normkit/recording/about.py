"""What a recording says of the process that made it, and how it speaks to that process."""

from __future__ import annotations

import contextlib
import datetime
import platform
import socket
import sys
import warnings
from importlib.metadata import version
from typing import Any


def common_meta() -> dict[str, Any]:
    """What every recording says of the process that made it."""
    return {
        "normkit": version("normkit"),
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "argv": sys.argv[:100],
        "script": sys.argv[0] if sys.argv else "",
        "started": now(),
    }


def warn_once(message: str) -> None:
    """A RuntimeWarning that cannot become an exception in somebody's training."""
    try:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    except RuntimeWarning:
        with contextlib.suppress(OSError, ValueError):
            print(f"normkit: {message}", file=sys.stderr)


def now() -> str:
    """The time here, with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
