"""What a question about a recording may name, and what is said when it names something else."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from normkit.errors import ArgumentError, in_brief

FAR = 1 << 62  # no run makes so many steps


def check_word(what: str, given: str, known: Sequence[str]) -> None:
    """Raises: ArgumentError unless `given` is among `known`, with the nearest of them."""
    if given in known:
        return
    close = get_close_matches(str(given), known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {_some(known)}"
    raise ArgumentError(f"there is no {what} {given!r}; {hint}")


def step_given(name: str, given: int | None, otherwise: int) -> int:
    """A step to begin or end at. Raises: ArgumentError for what is no whole number."""
    if given is not None and not hasattr(given, "__index__"):
        raise ArgumentError(f"{name}={in_brief(given)}: expected a whole number of steps, or None")
    return otherwise if given is None else max(-FAR, min(FAR, int(given)))


def _some(known: Sequence[str]) -> str:
    shown = ", ".join(map(repr, known[:8])) or "none"
    return f"{shown} and {len(known) - 8} more" if len(known) > 8 else shown
