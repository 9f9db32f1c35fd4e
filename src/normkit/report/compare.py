"""Two recordings as a person reads them: where they part, then the ratio of every tensor's norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from normkit.report import digits
from normkit.report.digits import plural
from normkit.report.heading import Run
from normkit.report.look import Look, printable
from normkit.report.pair import Pair, Parting, Ratio
from normkit.report.plain import FORMAT, number
from normkit.report.table import Column, laid_out
from normkit.report.text import wrapped
from normkit.report.trend import SLICES, slices, sparkline
from normkit.store.paths import shown

MOST = 25  # rows
NAMED = 3  # tensors that a sentence names; the others are counted
EXPENDABLE = ("least..most", "trend")  # the first goes first


def compare(
    pair: Pair,
    look: Look | None = None,
    *,
    kind: str = "l2",
    tolerance: float = 0.0,
    all: bool = False,  # noqa: A002  # the word of the command line
) -> str:
    """The text that `normkit compare` prints; `kind` is the norm, `all` shows every tensor."""
    look = look or Look()
    ratios = pair.ratios(kind)
    rows = ratios if all else ratios[:MOST]
    above = [_source("A", pair.a), _source("B", pair.b), *_parting(pair, pair.parting(tolerance), tolerance)]
    lines = [line for text in [*above, *_unlike(pair)] for line in wrapped(printable(text), look.width)]
    lines += laid_out([row.name for row in rows], _columns(pair, rows, kind, look), look, EXPENDABLE)
    return "\n".join([*lines, *_below(pair, len(ratios) - len(rows), look)])


def compare_json(pair: Pair, *, kind: str = "l2", tolerance: float = 0.0) -> dict[str, Any]:
    """The same as plain values; numbers that JSON does not know (NaN, infinity) are None."""
    parting = pair.parting(tolerance)
    return {
        "format": FORMAT,
        "a": str(pair.a.path),
        "b": str(pair.b.path),
        "norm": kind,
        "tolerance": tolerance,
        "common_steps": [int(step) for step in pair.steps],
        "parting": parting
        and {"step": parting.step, "tensors": list(parting.tensors), "identical_until": parting.before},
        "only_a": pair.only_a,
        "only_b": pair.only_b,
        "reshaped": pair.reshaped,
        "tensors": [_plain(pair, one) for one in pair.ratios(kind)],
    }


def _plain(pair: Pair, one: Ratio) -> dict[str, Any]:
    least, most = one.span
    return {
        "name": one.name,
        "a": number(one.a),
        "b": number(one.b),
        "ratio": number(one.last),
        "ratio_least": number(least),
        "ratio_most": number(most),
        "trend": [None if mean is None else number(mean) for mean in slices(pair.steps, one.ratios, one.there)],
    }


def _source(letter: str, run: Run) -> str:
    live = "" if run.meta.get("finished") else ", not closed: still running, or killed"
    size = f"{plural(len(run.steps), 'record')} x {plural(len(run.tensors), 'tensor')}"
    return f"{letter}: {shown(run.path)}    {size}{live}"


def _parting(pair: Pair, parting: Parting | None, tolerance: float) -> list[str]:
    common, what = plural(len(pair.steps), "common step"), plural(len(pair.tensors), "common tensor")
    alike = f"equal within {tolerance:g}" if tolerance else "identical"
    if parting is None:
        return [f"{alike} in all {common}, {_span(pair)}, of {what}"]
    count = len(parting.tensors)
    others = f" and {count - 1} more" if count > 1 else ""
    before = "the first common one" if parting.before is None else f"{alike} until step {parting.before:,}"
    return [
        f"the runs part at step {parting.step:,} ({before}): {parting.tensors[0]}{others}, {count:,} of {what}",
        f"{common}, {_span(pair)}",
    ]


def _span(pair: Pair) -> str:
    first, last = int(pair.steps[0]), int(pair.steps[-1])
    return f"{first:,} to {last:,}" if last > first else f"step {first:,}"


def _unlike(pair: Pair) -> list[str]:
    """What is not in both, or not of one shape."""
    found = {"only in A": pair.only_a, "only in B": pair.only_b, "of different shapes": pair.reshaped}
    return [f"{what}: {plural(len(names), 'tensor')}: {_few(names)}" for what, names in found.items() if names]


def _few(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _columns(pair: Pair, rows: Sequence[Ratio], kind: str, look: Look) -> list[Column]:
    return [
        Column(f"{kind} in A", tuple(digits.length(row.a) for row in rows)),
        Column("in B", tuple(digits.length(row.b) for row in rows)),
        Column("B/A", tuple(share(row.last) for row in rows)),
        Column("least..most", tuple(_range(row) for row in rows)),
        Column("trend", tuple(sparkline(pair.steps, row.ratios, row.there, look) for row in rows), left=True),
    ]


def _range(row: Ratio) -> str:
    least, most = map(share, row.span)
    return least if least == most else f"{least}..{most}"


def share(value: float) -> str:
    """A ratio in four digits; near 1, how far from it; "1" only where both are equal.

    >>> share(1.0), share(1.0000002), share(0.9999), share(1.25), share(31.7), share(float("nan")), share(0.0)
    ('1', '1+2e-7', '1-1e-4', '1.250', '31.70', '-', '0')
    """
    if math.isnan(value):
        return "-"
    away = value - 1
    if abs(away) >= 1e-3:
        return digits.length(value)
    return f"1{'+' if away > 0 else '-'}{digits.exponent(abs(away), 0)}" if away else "1"


def _below(pair: Pair, left_out: int, look: Look) -> list[str]:
    more = f" ... {left_out:,} more (--all)" if left_out else ""
    legend = f" at step {int(pair.steps[-1]):,}; trend of B/A: {plural(min(SLICES, len(pair.steps)), 'slice')} of steps"
    lines = [line for text in (more, legend) if text for line in wrapped(text, look.width)]
    return [look.paint(line, "faint") for line in lines]
