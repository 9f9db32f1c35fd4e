"""A command run as a child process: signals go down to it, its exit code or its signal comes up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from normkit.cli.script import Outcome
from normkit.errors import ArgumentError

FROM_KEYBOARD = ("SIGINT", "SIGQUIT")
PASSED = (*FROM_KEYBOARD, "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")  # what schedulers and people send to end or warn

LEFT_ALONE = (signal.SIG_IGN, None)  # ignored, or not Python's


@dataclass(frozen=True)
class Command:
    """A program to be looked up as a shell would, and the arguments behind it."""

    called: str
    arguments: tuple[str, ...]

    def run(self) -> Outcome:
        """Run it to its end. Raises: ArgumentError if it cannot be started."""
        with _passing_signals() as child:
            try:
                process = subprocess.Popen([self.called, *self.arguments])
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise ArgumentError(f"the command {self.called!r} cannot be started: {reason}") from None
            child.has(process)
            code = process.wait()
        return Outcome(code) if code >= 0 else Outcome(128 - code, signal=-code)


class _Child:
    """Whom signals are passed to; those that come before it is there are kept for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def has(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def get(self, number: int, _: FrameType | None) -> None:
        """A handler. What was typed at the terminal has reached the child already, as one of the group in front."""
        if signal.Signals(number).name in FROM_KEYBOARD and _in_front():
            return
        if self._process is None:
            self._early.append(number)
        else:
            self._process.send_signal(number)


@contextlib.contextmanager
def _passing_signals() -> Iterator[_Child]:
    """Signals that are ignored stay so, in the child as well (nohup)."""
    child = _Child()
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other one may set handlers
        numbers = [getattr(signal, name) for name in PASSED if hasattr(signal, name)]
        before = {number: handler for number in numbers if (handler := signal.getsignal(number)) not in LEFT_ALONE}
    try:
        for number in before:
            signal.signal(number, child.get)
        yield child
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_front() -> bool:
    """Is this process in the group that its terminal's keys are meant for?"""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def die_of(number: int) -> None:
    """End this process by a signal, as its child was ended: a shell sees the same. Returns where that is impossible."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # one core is enough
    with contextlib.suppress(OSError, ValueError):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
