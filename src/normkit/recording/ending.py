"""How a process ends, in the words that a recording keeps, and being there when it does."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from normkit.recording.recorder import Recorder


def words_for(error: BaseException | None) -> str:
    """The end of a program that `error` ended.

    >>> words_for(None), words_for(KeyboardInterrupt()), words_for(SystemExit(3)), words_for(ValueError("no good"))
    ('finished', 'interrupted', 'error: exit code 3', 'error: ValueError')
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        code = error.code
        if code is None or (isinstance(code, int) and code == 0):
            return "finished"
        return f"error: exit code {int(code)}" if isinstance(code, int) else f"error: {code}"
    return "finished" if error is None else f"error: {type(error).__name__}"


def at_end(close: Callable[[str], object]) -> Callable[[], None]:
    """Call `close` with the words for the end when this process ends; the result takes that back.

    A child of multiprocessing leaves by `os._exit`, after the finalizers of multiprocessing alone.
    """

    def last() -> None:
        close(_end())

    atexit.register(last)
    util, process = (sys.modules.get(f"multiprocessing.{name}") for name in ("util", "process"))
    if util is None or process is None or process.parent_process() is None:
        return lambda: atexit.unregister(last)
    finalizer = util.Finalize(None, last, exitpriority=100)

    def forget() -> None:
        atexit.unregister(last)
        finalizer.cancel()

    return forget


def close_at_exit(recorder: weakref.ref[Recorder]) -> None:
    """Close the recorder, if it is still alive when the interpreter ends."""
    if (alive := recorder()) is not None:
        alive.close(end="interpreter exit")


def _end() -> str:
    """What ends the process: known inside multiprocessing's `finally`, and after an error that Python has shown."""
    error = sys.exc_info()[1] or getattr(sys, "last_value", None)
    return "interpreter exit" if error is None else words_for(error)
