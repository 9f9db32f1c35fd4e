"""Which kind of program the words of `normkit run` mean: a script of this Python, or any other command."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from normkit.cli.command import Command
from normkit.cli.script import Program, Script, prepare
from normkit.errors import ArgumentError

Runnable = Program | Command

SCRIPT = (".py", ".pyw")


def program_of(called: str, arguments: Sequence[str]) -> Script | Command:
    """A script where `called` ends in .py or is a file that cannot be executed; else a command, as a shell finds it.

    Raises: ArgumentError where there is neither.
    """
    path = Path(called)
    if called.endswith(SCRIPT) or (path.is_file() and not os.access(path, os.X_OK)):
        _check_language(path)
        return prepare(called, arguments)
    if path.is_file():
        return Command(os.path.abspath(path), tuple(arguments))
    if shutil.which(called) is not None:
        return Command(called, tuple(arguments))
    if path.is_dir():
        return prepare(called, arguments)  # says what is wrong with it
    raise ArgumentError(
        f"there is neither a script {called!r} in {str(Path.cwd())!r} nor a command of that name; check the spelling"
    )


def _check_language(path: Path) -> None:
    """Raises: ArgumentError for a script of a shell, which Python would call a syntax error."""
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except (OSError, ValueError):
        return
    if first.startswith(b"#!") and b"python" not in first and path.suffix not in SCRIPT:
        raise ArgumentError(
            f"{str(path)!r} is not a Python script; run it by its own program, as in: normkit run -- bash {path}"
        )
