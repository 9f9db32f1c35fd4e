"""The last line of `normkit run`: what to type next, or why there is nothing to look at."""

from __future__ import annotations

import shlex
from pathlib import Path

from normkit.cli.command import Command
from normkit.cli.program import Runnable
from normkit.cli.script import Outcome
from normkit.recording.ledger import Notes
from normkit.store.paths import FOLDER, shown

OWN = "the script records itself"  # a door's words for it


def farewell(notes: Notes, program: Runnable, outcome: Outcome, here: Path) -> str:
    """What to type next in the folder `here`, or why there is nothing to look at."""
    if notes.recorded:
        return f"Next:  normkit show{argument(Path(notes.recorded[0]), here)}"
    why = " ".join(notes.refused[0].split()) if notes.refused else _nothing(isinstance(program, Command), outcome)
    return f"normkit: nothing{' more' if why == OWN else ''} was recorded: {why}"


def _nothing(command: bool, outcome: Outcome) -> str:
    if outcome.code:
        return f"the {'command' if command else 'script'} ended before an optimizer took a step"
    where = " in a Python that has normkit" if command else ""
    return f"no PyTorch optimizer took a step, and no Keras model was fitted{where}"


def argument(path: Path, here: Path) -> str:
    """The argument that `normkit show` needs for this file: none where it finds it by itself."""
    return "" if path.parent == here / FOLDER else f" {shlex.quote(shown(path, here))}"
