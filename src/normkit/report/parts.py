"""The parts g and v of normalized weights: what is said of them beside the rows that they have in the table."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from normkit.diagnose import Columns, balances
from normkit.diagnose.balance import Balance
from normkit.report.digits import plural
from normkit.report.look import printable
from normkit.report.rows import Row

NAMED = 3  # weights of which each has its figure
MEANING = "1: balanced; far below, the direction is frozen"


def parted(columns: Columns, rows: Sequence[Row]) -> list[str]:
    """R of the normalized weights among the rows, first -> last; of many the range, and the least by its name."""
    names = {columns.tensors[n] for row in rows for n in row.members}
    found = among(columns, names)
    if not found:
        return []
    return [printable(f" R of g and v, first -> last: {_figures(found)} ({MEANING})")]


def among(columns: Columns, names: Collection[str]) -> list[Balance]:
    """The figures of those weights that are among `names` by themselves or by a part."""
    return [one for one in balances(columns) if not {one.name, f"{one.name}.g", f"{one.name}.v"}.isdisjoint(names)]


def _figures(found: Sequence[Balance]) -> str:
    if len(found) <= NAMED:
        return ", ".join(f"{one.name} {one.first:.3g} -> {one.last:.3g}" for one in found)
    least = min(found, key=lambda one: one.last)
    first, last = ([getattr(one, when) for one in found] for when in ("first", "last"))
    ranges = " -> ".join(f"{min(values):.3g}..{max(values):.3g}" for values in (first, last))
    return f"{ranges} of {plural(len(found), 'weight')}, least of {least.name}"
