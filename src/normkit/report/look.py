"""How the text may look where it will be read: how wide, with which signs, in colour or not."""

from __future__ import annotations

from dataclasses import dataclass

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.:-=+*#"
STYLES = {"error": "31;1", "warning": "33;1", "note": "36", "faint": "2", "strong": "1"}


@dataclass(frozen=True)
class Look:
    """`width` in columns, at least 40; `blocks` where the terminal can print them; `color` for ANSI colours."""

    width: int = 80
    blocks: bool = True
    color: bool = False

    @property
    def levels(self) -> str:
        """Eight heights, the lowest first."""
        return BLOCKS if self.blocks else PLAIN

    @property
    def cut(self) -> str:
        """Stands where text was left out."""
        return "…" if self.blocks else "~"

    @property
    def broken(self) -> str:
        """Stands for a slice that holds NaN or infinity."""
        return "×" if self.blocks else "x"

    def paint(self, text: str, style: str) -> str:
        """`text` in one of `STYLES`, or as it is."""
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self.color and text.strip() else text


def printable(text: str) -> str:
    """`text` without control characters: a tensor's name comes from a file and shall not steer the terminal.

    >>> printable("conv1\\x1b[2J.weight")
    'conv1?[2J.weight'
    """
    return "".join(sign if sign.isprintable() else "?" for sign in text)
