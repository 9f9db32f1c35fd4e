"""Findings as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from normkit.types import Finding

MARKS = {"error": "!!", "warning": " !", "note": " -"}
INDENT = 5
WIDEST = 96


def lines(finding: Finding, width: int = 80) -> list[str]:
    """What was seen, behind a mark for its gravity; below it what to do; at the right what the threshold rests on.

    At most `width` columns, and never more than a person likes to read.
    """
    width = min(width, WIDEST)
    seen = textwrap.wrap(
        _printable(finding.text), width, initial_indent=f"{MARKS[finding.severity]} ", subsequent_indent=" " * 3
    )
    source = f" ({finding.source})" if finding.source else ""
    todo = textwrap.wrap(
        _printable(finding.remedy + source), width, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT
    )
    return [*seen, *_with_basis(todo, finding.basis, width)]


def text(findings: Sequence[Finding], width: int = 80) -> str:
    """All findings, one below the other; empty where there is none.

    >>> print(text([Finding("all-zero", "warning", "fc.weight is zero in every entry.", "Start it elsewhere.")], 60))
     ! fc.weight is zero in every entry.
         Start it elsewhere.                             theorem
    """
    return "\n".join(line for finding in findings for line in lines(finding, width))


def _with_basis(todo: list[str], basis: str, width: int) -> list[str]:
    if todo and len(todo[-1]) + 3 + len(basis) <= width:
        return [*todo[:-1], f"{todo[-1]:<{width - len(basis)}}{basis}"]
    return [*todo, f"{basis:>{width}}"]


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text)
