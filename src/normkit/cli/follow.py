"""`normkit show --watch`: a run while it goes on, looked at again whenever its file has changed."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from normkit.cli.outlet import look, put
from normkit.errors import FileError
from normkit.readers import Recording, latest
from normkit.report import headline
from normkit.store.paths import FOLDER, shown

if TYPE_CHECKING:
    from rich.live import Live

PAUSE = 1.0  # seconds between two looks, at least
SHARE = 0.1  # of one core is what looking may take
STALE = 10.0  # seconds after which an unchanged screen is drawn again: it says how long ago the last record was
FOOT = " following the run; Ctrl-C leaves"

Draw = Callable[[Recording], str]


def follow(path: Path | None, draw: Draw) -> None:
    """Show the recording, without `path` the newest one, until it is finished. An interrupt ends it quietly.

    On a terminal the text of `draw` is kept up to date; elsewhere there is one line per change, and the text at the
    end. Nothing of the file is held between two looks.

    Raises: FileError where the file is no recording, or goes away meanwhile.
    """
    screen = Display(draw) if steerable() else Lines(draw)
    try:
        with screen:
            for recording in looks(awaited(path), screen.stale):
                screen.update(recording)
    except KeyboardInterrupt:
        return


def steerable() -> bool:
    """Is standard output a terminal on which a text can be replaced?"""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def awaited(path: Path | None) -> Path:
    """The recording to follow, once something has been written to it."""
    said = False
    while (found := path or newest()) is None or (found.is_file() and not found.stat().st_size):
        if not said:
            where = f"no recording in {FOLDER!r}" if found is None else f"nothing in {shown(found)!r}"
            put(f"normkit: {where} yet; waiting (Ctrl-C leaves)", err=True)
        said = True
        time.sleep(PAUSE)
    return found


def newest() -> Path | None:
    """The newest recording, where there is one."""
    try:
        return latest()
    except FileError:
        return None


def looks(path: Path, stale: float = math.inf) -> Iterator[Recording]:
    """The recording, opened anew when its file has changed or `stale` seconds have gone by; the last is finished.

    What is done with it counts as part of the look: the next one waits nine times as long as both took.
    """
    seen: object = None
    began = -math.inf
    while True:
        stamp, took = stamped(path), 0.0
        if stamp != seen or time.monotonic() - began > stale:
            began = time.monotonic()
            recording = reopened(path, first=seen is None)
            yield recording
            if recording.meta.get("finished"):
                return
            seen, took = stamp, time.monotonic() - began
        time.sleep(max(PAUSE, took * (1 - SHARE) / SHARE))


def stamped(path: Path) -> list[tuple[int, int] | None]:
    """What is not the same any more when the file or its WAL has been written to."""
    stamps: list[tuple[int, int] | None] = []
    for name in (path, Path(f"{path}-wal")):
        try:
            found = name.stat()
            stamps.append((found.st_mtime_ns, found.st_size))
        except OSError:
            stamps.append(None)
    return stamps


def reopened(path: Path, *, first: bool) -> Recording:
    """The recording as it is now. Raises: FileError, which says so where the file was there before."""
    try:
        return Recording(path)
    except FileError:
        if first or path.exists():
            raise
        raise FileError(f"{shown(path)!r} is gone: it was moved or deleted while it was followed") from None


class Display(AbstractContextManager["Display"]):
    """A terminal: the text stands still while it is kept up to date, and stays when all is over."""

    stale = STALE

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._live: Live | None = None
        self._text = ""

    def update(self, recording: Recording) -> None:
        """Draw it anew; of a finished run only the end is to be shown."""
        self._text = self._draw(recording)
        if not recording.meta.get("finished"):
            self._replace(f"{fitting(self._text)}\n{look(sys.stdout).paint(FOOT, 'faint')}")

    def _replace(self, text: str) -> None:
        from rich.text import Text

        self._live = self._live or started()
        self._live.update(Text.from_ansi(text, no_wrap=True, overflow="crop"), refresh=True)

    def __exit__(self, *_: object) -> None:
        """Whatever the reason, the last text is left behind, whole."""
        if self._live is not None:
            self._live.stop()
        if self._text:
            put(self._text)


def started() -> Live:
    """A place on the terminal where a text can be replaced, and which is wiped when it is stopped."""
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(), auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
    live.start()
    live.console.show_cursor()  # a killed process could not bring it back
    return live


def fitting(text: str) -> str:
    """As many lines as the terminal holds beside the foot and the line of the cursor, and how many more there are."""
    lines = text.split("\n")
    room = max(shutil.get_terminal_size().lines - 2, 3)
    hidden = len(lines) - room + 1
    return text if hidden <= 1 else "\n".join([*lines[: room - 1], f" ... {hidden} more lines in a higher terminal"])


class Lines(AbstractContextManager["Lines"]):
    """No terminal: how far the run has come, a line per change, and the text when it is finished."""

    stale = math.inf

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._line = ""

    def update(self, recording: Recording) -> None:
        """Say what has changed; of a finished run everything."""
        line = headline(recording)
        if recording.meta.get("finished"):
            put(self._draw(recording))
        elif line != self._line:
            put(line)
        self._line = line

    def __exit__(self, *_: object) -> None:
        """Nothing to take away."""
