"""One recorded step as a table: every tensor by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from normkit.diagnose import Columns, Source
from normkit.report.digits import extent, length
from normkit.report.heading import total_steps
from normkit.report.look import Look, printable
from normkit.report.plain import FORMAT, KINDS, described, number
from normkit.report.table import Column, laid_out, role
from normkit.report.text import wrapped
from normkit.store.paths import shown
from normkit.types import QUANTITIES, Param, Stats

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

EXPENDABLE = ("role", "shape", "rms", "linf")  # the first goes first
ABSENT = "-"

Measure = Callable[[Any, str], Any]  # the room `norms` as its caller hands it in: Stats and a norm's name -> number


class Moments(Source, Protocol):
    """What a moment is read from: a `Recording`, or anything with these attributes."""

    @property
    def path(self) -> Path: ...
    @property
    def epochs(self) -> NDArray[np.float64]: ...
    @property
    def scalar_names(self) -> Sequence[str]: ...


def text(
    recording: Moments,
    step: int,
    *,
    measure: Measure,
    look: Look | None = None,
    select: Collection[str] | None = None,
) -> str:
    """The text that `normkit show --at STEP` prints; `select` holds names of the tensors wanted.

    Raises: ArgumentError if the step was not recorded.
    """
    look = look or Look()
    rows = _rows(recording, step, select)
    lines = wrapped(headline(recording, step), look.width)
    lines[0] = look.paint(lines[0], "strong")
    names = [param.name for param, _ in rows]
    return "\n".join([*lines, *(laid_out(names, _columns(rows, measure), look, EXPENDABLE) if rows else ())])


def to_json(
    recording: Moments, step: int, *, measure: Measure, select: Collection[str] | None = None
) -> dict[str, Any]:
    """The same as plain values, each norm of each quantity; numbers that JSON does not know (NaN, infinity) are None.

    Raises: ArgumentError if the step was not recorded.
    """
    rows = _rows(recording, step, select)
    epoch = _epoch(recording, step)
    return {
        "format": FORMAT,
        "path": str(recording.path),
        "step": step,
        "steps": total_steps(recording),
        "epoch": None if math.isnan(epoch) else int(epoch),
        "scalars": {name: number(value) for name, value in _logged(recording, step)},
        "tensors": [
            {
                **described(param),
                **{word: _norms(found.get(word), measure) for word in QUANTITIES},
            }
            for param, found in rows
        ],
    }


def headline(recording: Moments, step: int) -> str:
    """Which step of which file, and what was logged at it."""
    epoch = _epoch(recording, step)
    parts = [
        f"normkit: step {step:,} of {total_steps(recording):,} in {shown(recording.path)}",
        "" if math.isnan(epoch) else f"epoch {epoch:g}",
        *(f"{name} {value:.4g}" for name, value in _logged(recording, step)),
    ]
    return printable("    ".join(filter(None, parts)))


def _rows(recording: Moments, step: int, select: Collection[str] | None) -> list[tuple[Param, Mapping[str, Stats]]]:
    readings = recording.at(step)
    wanted = set(readings if select is None else select)
    known = {param.name: param for param in Columns.of(recording).params}
    return [(known[name], found) for name, found in readings.items() if found and name in wanted]


def _epoch(recording: Moments, step: int) -> float:
    return float(recording.epochs[np.searchsorted(recording.steps, step)])


def _logged(recording: Moments, step: int) -> list[tuple[str, float]]:
    record = int(np.searchsorted(recording.steps, step))
    logged = [(name, float(recording.scalar(name)[record])) for name in recording.scalar_names]
    return [(name, value) for name, value in logged if not math.isnan(value)]


def _norms(stats: Stats | None, measure: Measure) -> dict[str, float | None] | None:
    return None if stats is None else {kind: number(float(measure(stats, kind))) for kind in KINDS}


def _columns(rows: Sequence[tuple[Param, Mapping[str, Stats]]], measure: Measure) -> list[Column]:
    def column(title: str, kind: str, quantity: str = "weight") -> Column:
        values = [found.get(quantity) for _, found in rows]
        return Column(
            title, tuple(ABSENT if value is None else length(float(measure(value, kind))) for value in values)
        )

    weights = [found.get("weight") for _, found in rows]
    return [
        Column("role", tuple(role(param) for param, _ in rows), left=True),
        Column("shape", tuple(extent([param.shape]) for param, _ in rows), left=True),
        column("l2", "l2"),
        column("rms", "rms"),
        column("linf", "linf"),
        column("grad l2", "l2", "grad"),
        column("update l2", "l2", "update"),
        Column("zeros", tuple(ABSENT if one is None else share(one.zeros, one.count) for one in weights)),
        Column("nonfinite", tuple(ABSENT if one is None else f"{one.nonfinite:,}" for one in weights)),
    ]


def share(count: int, whole: int) -> str:
    """Of all entries; 0 and 100 % are said of none and all only.

    >>> share(0, 8), share(1, 8), share(8, 8), share(1, 10**6), share(10**6 - 1, 10**6), share(0, 0)
    ('0', '12.5 %', '100 %', '<0.1 %', '>99.9 %', '0')
    """
    if not count:
        return "0"
    if count == whole:
        return "100 %"
    percent = 100 * count / whole
    return "<0.1 %" if percent < 0.05 else ">99.9 %" if percent >= 99.95 else f"{percent:.1f} %"
