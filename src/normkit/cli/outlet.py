"""Where a command's text goes: how wide it may be, which signs it can carry, whether in colour."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from normkit.report import Look

PIPED = 160  # columns where no terminal says how many it has
LEAST = 40


def look(stream: TextIO) -> Look:
    """What `stream` can show. COLUMNS overrules the terminal's width, NO_COLOR its colours."""
    from normkit.report import Look
    from normkit.report.look import BLOCKS

    terminal = stream.isatty()
    width = shutil.get_terminal_size((80 if terminal else PIPED, 24)).columns if terminal or asked() else PIPED
    color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Look(width=max(width, LEAST), blocks=carries(stream, f"{BLOCKS}×…"), color=color)


def asked() -> bool:
    """Did somebody set COLUMNS?"""
    return os.environ.get("COLUMNS", "").isdecimal()


def carries(stream: TextIO, signs: str) -> bool:
    """Can the stream's encoding write these signs? An old Windows console cannot."""
    try:
        signs.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def put(text: str, *, err: bool = False) -> None:
    """Print `text`; a sign that the stream cannot write becomes "?"."""
    stream = sys.stderr if err else sys.stdout
    encoding = stream.encoding or "ascii"
    click.echo(text if carries(stream, text) else text.encode(encoding, "replace").decode(encoding), file=stream)
