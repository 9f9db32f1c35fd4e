"""The table itself: rows in columns that fit the width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normkit.diagnose import Columns
from normkit.report import digits
from normkit.report.look import Look, printable
from normkit.report.rows import Row
from normkit.report.trend import sparkline
from normkit.types import Param

LEAST_NAME = 30  # below that, a column goes before the names are cut further
EXPENDABLE = ("role", "shape", "upd/step", "trend")  # the first goes first


@dataclass(frozen=True)
class Column:
    """One column: its title, its cells, and on which side they stand."""

    title: str
    cells: tuple[str, ...]
    left: bool = False

    @property
    def width(self) -> int:
        return max(len(self.title), *map(len, self.cells)) if self.cells else len(self.title)

    def line(self, n: int) -> str:
        """Cell `n`, or the title for -1, filled to the column's width."""
        text = self.title if n < 0 else self.cells[n]
        return text.ljust(self.width) if self.left else text.rjust(self.width)


def table(columns: Columns, rows: Sequence[Row], look: Look) -> list[str]:
    """Title and rows, each at most `look.width` wide."""
    return laid_out([row.name for row in rows], _columns(columns, rows, look), look, EXPENDABLE)


def laid_out(called: Sequence[str], rest: list[Column], look: Look, expendable: Sequence[str]) -> list[str]:
    """Title and rows: what each tensor is `called`, and the `rest` beside it.

    Where they do not fit, columns move closer, then the `expendable` are left out, and at last the names are cut.
    """
    names = [printable(name) for name in called]
    least = min(max(map(len, names), default=0), LEAST_NAME)
    rest, gap, room = _fitting(rest, look.width - 1, least, expendable)
    parts = [Column("tensor", tuple(cut(names, max(room, 8), look)), left=True), *rest]
    lines = [" " + (" " * gap).join(part.line(n) for part in parts).rstrip() for n in range(-1, len(names))]
    return [look.paint(lines[0], "faint"), *lines[1:]]


def _fitting(rest: list[Column], width: int, least: int, expendable: Sequence[str]) -> tuple[list[Column], int, int]:
    """Columns beside the name, the gap between them, and the room that is left for names."""
    going = list(expendable)
    while True:
        for gap in (2, 1):
            room = width - sum(column.width + gap for column in rest)
            if room >= least:
                return rest, gap, room
        if not going:
            return rest, 1, room
        gone = going.pop(0)
        rest = [column for column in rest if column.title != gone]


def _columns(columns: Columns, rows: Sequence[Row], look: Look) -> list[Column]:
    return [
        Column("role", tuple(role(row.params[0]) for row in rows), left=True),
        Column("shape", tuple(digits.extent([param.shape for param in row.params]) for row in rows), left=True),
        Column("l2 first -> last", _lengths(rows)),
        Column("change", tuple(row.course for row in rows)),
        Column("upd/step", tuple(digits.ratio(row.step) for row in rows)),
        Column("trend", tuple(sparkline(columns.steps, row.lengths, row.there, look) for row in rows), left=True),
    ]


def _lengths(rows: Sequence[Row]) -> tuple[str, ...]:
    pairs = [(digits.length(row.first), digits.length(row.last)) for row in rows]
    first, last = (max((len(pair[side]) for pair in pairs), default=0) for side in (0, 1))
    return tuple(f"{a:>{first}}  {b:>{max(last, 8)}}" for a, b in pairs)


def role(param: Param) -> str:
    """The role; of the parts of a normalized weight, which part."""
    return param.role if param.part not in ("g", "v") else f"part {param.part}"


def cut(names: Sequence[str], width: int, look: Look) -> list[str]:
    """Names that are too long lose their beginning, or their middle where the ends alone would be ambiguous.

    >>> cut(["encoder.h.0.attn.c_attn.weight", "wte.weight"], 20, Look())
    ['….attn.c_attn.weight', 'wte.weight']
    """
    ends = [name if len(name) <= width else look.cut + name[len(name) - width + 1 :] for name in names]
    if len(set(ends)) == len(set(names)):
        return ends
    head = (width - 1) // 3
    return [
        name if len(name) <= width else name[:head] + look.cut + name[len(name) - (width - 1 - head) :]
        for name in names
    ]
