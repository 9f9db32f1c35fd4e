"""Telling the Python processes below `normkit run` what to do, by their environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from normkit.cli.below import VARIABLE
from normkit.recording.options import Options

SEARCHED = "PYTHONPATH"
STARTUP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")  # the folder of our sitecustomize


@contextlib.contextmanager
def telling(options: Options) -> Iterator[None]:
    """Tell the processes that begin meanwhile; afterwards the environment is as the program left it otherwise."""
    before = {name: os.environ.get(name) for name in (VARIABLE, SEARCHED)}
    ours = {VARIABLE: options.text(), SEARCHED: _in_front(before[SEARCHED])}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if os.environ.get(name) == ours[name]:
                del os.environ[name]
                if value is not None:
                    os.environ[name] = value


def _in_front(searched: str | None) -> str:
    """The search path with our folder in front, once."""
    folders = [folder for folder in (searched or "").split(os.pathsep) if folder != STARTUP] if searched else []
    return os.pathsep.join([STARTUP, *folders])
