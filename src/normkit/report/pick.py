"""Which rows are shown, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from normkit.diagnose import Columns
from normkit.report.rows import FOLDS, FOLDS_ABOVE, MOST, Row, folded, single

SORTS = ("name", "change", "l2", "update")
CALM = ("bias", "buffer")  # roles of which two rows are shown, and the rest counted
SHOWN = 2
SHORT = 10  # a table of so many rows is shown whole


def pick(
    columns: Columns, *, every: bool, sort: str | None, select: Collection[str] | None
) -> tuple[list[Row], list[Row]]:
    """Rows to show and rows to count only.

    `every` shows each tensor by itself. Above `FOLDS_ABOVE` tensors siblings are folded, as little as leaves `MOST`
    rows. Of biases and buffers the two that moved farthest are shown, unless the table is short or they were selected.
    """
    wanted = None if select is None else set(select)
    members = _in_order(columns, [n for n, name in enumerate(columns.tensors) if wanted is None or name in wanted])
    keep_all = every or wanted is not None
    if every or len(members) <= FOLDS_ABOVE:
        shown, hidden = hide(single(columns, members), keep_all)
    else:
        for fold in FOLDS:
            shown, hidden = hide(folded(columns, members, fold), keep_all)
            if len(shown) <= MOST:
                break
    return ordered(shown, sort), hidden


def hide(rows: Sequence[Row], keep_all: bool) -> tuple[list[Row], list[Row]]:
    """Split off the calm rows; one that holds NaN or infinity is never calm."""
    if keep_all or len(rows) <= SHORT:
        return list(rows), []
    hidden: list[Row] = []
    for role in CALM:
        calm = [row for row in rows if row.params[0].role == role and math.isfinite(row.last)]
        moved = sorted(calm, key=lambda row: -abs(row.last - row.first))[:SHOWN]
        hidden += [row for row in calm if row not in moved]
    out = {id(row) for row in hidden}
    return [row for row in rows if id(row) not in out], hidden


def ordered(rows: Sequence[Row], sort: str | None) -> list[Row]:
    """In the model's order, by name, or the largest first; what is not finite comes before all."""
    if sort is None:
        return list(rows)
    if sort == "name":
        return sorted(rows, key=lambda row: row.name)
    values: dict[str, Callable[[Row], float]] = {
        "change": _change,
        "l2": lambda row: row.last,
        "update": lambda row: row.step,
    }
    return sorted(rows, key=lambda row: (math.isfinite(row.last), -_known(values[sort](row))))


def _change(row: Row) -> float:
    """From zero is no figure to compare; such rows come last."""
    return -1.0 if math.isinf(row.change) else abs(row.change)


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _in_order(columns: Columns, members: Sequence[int]) -> list[int]:
    """The parts g and v right behind the weight they make."""
    place: dict[str, int] = {}
    for n in members:
        place.setdefault(_whole(columns, n), n)
    rank = {"whole": 0, "effective": 0, "g": 1, "v": 2}
    return sorted(members, key=lambda n: (place[_whole(columns, n)], rank[columns.params[n].part], n))


def _whole(columns: Columns, n: int) -> str:
    name = columns.tensors[n]
    return name.rpartition(".")[0] if columns.params[n].part in ("g", "v") else name
