"""What is said when the compiler starts, and where it is not said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_hushed: ContextVar[bool] = ContextVar("hushed", default=False)
_said: list[str] = []


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, kernels are compiled without a word."""
    token = _hushed.set(True)
    try:
        yield
    finally:
        _hushed.reset(token)


def say_once() -> None:
    """Tell the user, once, why the first call takes a while."""
    if not _said and not _hushed.get():
        _said.append("normkit: compiling its kernels (once per machine) ...")
        print(_said[0], file=sys.stderr, flush=True)
