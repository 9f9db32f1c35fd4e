"""A Python program run inside this process: a script as `python script.py` would run it."""

from __future__ import annotations

import builtins
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from normkit.errors import ArgumentError
from normkit.recording.ending import words_for

FAILED, INTERRUPTED = 1, 130
ROOM = os.path.dirname(os.path.abspath(__file__))


class Interrupted(SystemExit):
    """Leave the program because of Ctrl-C; `main` makes it what Python makes of it."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED)


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit code, the words for the recording, and the signal that a child died of, or 0."""

    code: int
    end: str = "finished"
    signal: int = 0

    @property
    def interrupted(self) -> bool:
        """By Ctrl-C, not by a script that exits with the same code."""
        return self.end == "interrupted"


class NoProgramError(ArgumentError):
    """There is nothing to run: not an error of the program, which never began."""


class Program(ABC):
    """What can be run as `__main__`; `called` gives the recording its name."""

    called: str

    def run(self) -> Outcome:
        """Run it as `__main__`; an error is shown with the script's own frames, as Python shows it.

        The module stays `__main__` afterwards: exit handlers, threads and pickles of the script still need it.
        """
        try:
            code, main = self._loaded()
            exec(code, main.__dict__)
        except NoProgramError:
            raise
        except SystemExit as stop:
            return _exit(stop)
        except BaseException as error:
            self._show(error)
            return Outcome(INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED, words_for(error))
        return Outcome(0)

    @abstractmethod
    def _loaded(self) -> tuple[CodeType, ModuleType]:
        """The compiled program and the module it runs in. Raises: NoProgramError, or what compiling raises."""

    def _show(self, error: BaseException) -> None:
        """Through the script's own excepthook if it set one."""
        frames = _own_frames(error.__traceback__)
        _flush()
        sys.excepthook(type(error), error.with_traceback(frames), frames)


@dataclass(frozen=True)
class Script(Program):
    """A readable script, the name it was called by, and the arguments behind it."""

    called: str
    source: bytes
    arguments: tuple[str, ...]

    @property
    def file(self) -> str:
        return os.path.abspath(self.called)

    def _loaded(self) -> tuple[CodeType, ModuleType]:
        main = self._become_main()
        return SourceFileLoader("__main__", self.file).source_to_code(self.source, self.file), main

    def _become_main(self) -> ModuleType:
        """What Python sets up before it runs a script: the module, the arguments, the folder to import from."""
        main = ModuleType("__main__")
        main.__dict__.update(
            __file__=self.file,
            __builtins__=builtins,
            __loader__=SourceFileLoader("__main__", self.file),
            __cached__=None,
            __annotations__={},
        )
        main.__spec__ = main.__package__ = None
        sys.modules["__main__"] = main
        sys.argv[:] = [self.called, *self.arguments]
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(self.file))
        return main


def _own_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback from the program's first frame on; none where it did not even compile."""
    while frames is not None and _before_it(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


def _before_it(file: str) -> bool:
    """Is it a frame of ours, or of Python's own machinery that finds and compiles a program?"""
    return file.startswith("<frozen ") or os.path.dirname(file) == ROOM


def prepare(called: str, arguments: Sequence[str]) -> Script:
    """Read the script. Raises: ArgumentError where there is none to read."""
    path = Path(called)
    if path.is_dir():
        raise ArgumentError(f"{called!r} is a directory; give the script to run, such as {str(path / 'train.py')!r}")
    try:
        return Script(called, path.read_bytes(), tuple(arguments))
    except FileNotFoundError:
        raise ArgumentError(f"there is no script {called!r} in {str(Path.cwd())!r}; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(f"the script {called!r} cannot be read: {reason}") from None


def _exit(stop: SystemExit) -> Outcome:
    """sys.exit(None), sys.exit(3), sys.exit("sentence") as Python treats them."""
    if stop.code is None or isinstance(stop.code, int):
        return Outcome(int(stop.code or 0), words_for(stop))
    _flush()
    print(stop.code, file=sys.stderr)
    return Outcome(FAILED, words_for(stop))


def _flush() -> None:
    """What the script printed comes before what follows, whoever still listens."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        return
