"""The writer's promise: nothing that goes wrong with the disk reaches the training; it is said once."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

P = ParamSpec("P")


class Promise:
    """The first error of one file, said once as a RuntimeWarning at the caller's next call.

    `over` is set when the file is closed.
    """

    def __init__(self, path: Path) -> None:
        self.error: str | None = None
        self.over = False
        self._owner = os.getpid()
        self._path = path
        self._said = False

    @property
    def inherited(self) -> bool:
        """Is this a forked child? The file belongs to the process that began it."""
        return os.getpid() != self._owner

    def broken(self, error: Exception) -> None:
        """Keep the first error."""
        if self.error is None:
            self.error = str(error) or type(error).__name__

    def say(self) -> None:
        """Warn, if there is something to say that was not said."""
        if self.error is None or self._said:
            return
        self._said = True
        message = (
            f"normkit could not write to {str(self._path)!r}: {self.error}; training goes on, "
            "and what was written before stays readable"
        )
        try:
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        except RuntimeWarning:  # warnings are errors here, but not in somebody's training
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(f"normkit: {message}\n")


def promised(method: Callable[Concatenate[Any, P], int]) -> Callable[Concatenate[Any, P], int]:
    """A method that never raises, of an object with a `_promise`; -1 in a forked child and when all is over."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> int:
        promise: Promise = self._promise
        if promise.over or promise.inherited:
            return -1
        try:
            return method(self, *args, **kwargs)
        except Exception as error:  # a recorder never breaks training
            promise.broken(error)
            return -1
        finally:
            promise.say()

    return call
