"""A recording as a person reads it: findings first, then a table of ten seconds."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Collection, Sequence

from normkit.diagnose import Columns
from normkit.report import digits
from normkit.report.digits import plural
from normkit.report.heading import Run, findings_of, headline, overview, remarks, tied
from normkit.report.look import Look
from normkit.report.parts import parted
from normkit.report.pick import SORTS, pick
from normkit.report.remarks import findings_text
from normkit.report.rows import Row
from normkit.report.table import table
from normkit.report.trend import SLICES

__all__ = ["SORTS", "show"]


def show(
    recording: Run,
    look: Look | None = None,
    *,
    all: bool = False,  # noqa: A002  # the word of the command line
    sort: str | None = None,
    select: Collection[str] | None = None,
) -> str:
    """The text that `normkit show` prints.

    `all` shows every tensor by itself; `sort` is one of `SORTS`, None the model's order; `select` holds names of the
    tensors wanted. Lines are at most `look.width` wide, as long as it is 40 or more.
    """
    look = look or Look()
    columns = Columns.of(recording)
    findings = findings_of(recording, columns)
    above = [headline(recording), overview(columns, findings), *remarks(columns, recording.walls)]
    lines = [line for text in above for line in wrapped(text, look.width)]
    lines[0] = look.paint(lines[0], "strong")
    if findings:
        lines += findings_text(findings, look).split("\n")
    if len(columns.steps) and columns.tensors:
        rows, hidden = pick(columns, every=all, sort=sort, select=select)
        lines += [*table(columns, rows, look), *_below(columns, rows, hidden, look)]
    return "\n".join(lines)


def wrapped(text: str, width: int) -> list[str]:
    """The line, broken between its four-space parts where it is too long, else between words."""
    if len(text) <= width:
        return [text]
    lines: list[str] = []
    for part in text.split("    "):
        if lines and len(lines[-1]) + 4 + len(part) <= width:
            lines[-1] += "    " + part
        else:
            lines.append(part)
    return [
        piece
        for line in lines
        for piece in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [line]
    ]


def _below(columns: Columns, rows: Sequence[Row], hidden: Sequence[Row], look: Look) -> list[str]:
    """What the table leaves out, and what its signs mean."""
    left = _left_out(rows, hidden)
    right = f"trend: {plural(min(SLICES, len(columns.steps)), 'slice')} of steps; full height 25 % or more"
    if len(left) + 3 + len(right) <= look.width:
        legend = [f"{left}{right:>{min(look.width, 80) - len(left)}}"]
    else:
        legend = [*wrapped(left, look.width), *wrapped(right, look.width)]
    folded = [f" xN: N tensors as one l2; change {_dots(rows)}"] if any(len(row.members) > 1 for row in rows) else []
    ties = [f" tied: {line}" for line in tied([param for row in rows for param in row.params])]
    notes = [*folded, *parted(columns, rows), *ties[:3], *([f" tied: {len(ties) - 3} more"] if len(ties) > 3 else [])]
    return [
        look.paint(line, "faint")
        for line in [*legend, *(piece for note in notes for piece in wrapped(note, look.width))]
    ]


def _dots(rows: Sequence[Row]) -> str:
    ranges = any(".." in row.course for row in rows)
    return "a..b from the least to the most" if ranges else "of all together"


def _left_out(rows: Sequence[Row], hidden: Sequence[Row]) -> str:
    counts = Counter(param.role for row in hidden for param in row.params)
    if counts:
        return f" ... {', '.join(f'{_more(count, role)}' for role, count in counts.items())} (--all)"
    return " --all shows each tensor" if any(len(row.members) > 1 for row in rows) else ""


def _more(count: int, role: str) -> str:
    number, noun = digits.plural(count, role).split(" ")
    return f"{number} more {noun}"
