"""The lines above the table: what was recorded, of what, and how the run ended."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from normkit.diagnose import Columns, Source
from normkit.report.digits import duration, length, plural
from normkit.report.look import printable
from normkit.report.rows import together
from normkit.store.paths import shown
from normkit.types import Finding, Param

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Run(Source, Protocol):
    """What a report reads from: a `Recording`, or anything with these attributes."""

    @property
    def path(self) -> Path: ...
    @property
    def walls(self) -> NDArray[np.float64]: ...
    def findings(self) -> list[Finding]: ...


def headline(columns: Columns, path: Path) -> str:
    """How many of how many steps, and where: the line that a recorder says at its end."""
    steps = max(int(columns.meta.get("steps") or 0), columns.last)
    records = int(columns.trained.sum())
    what = f"{records:,} of {plural(steps, 'step')} x {plural(len(columns.tensors), 'tensor')}"
    return printable(f"normkit: recorded {what} in {shown(path)}")


def overview(columns: Columns, findings: Sequence[Finding]) -> str:
    """Findings, weights, optimizers and the length of all weights together, in one line."""
    counted = total_members(columns)
    weights = sum(columns.params[n].count for n in counted)
    parts = [
        plural(len(findings), "finding") if findings else "no findings",
        plural(weights, "weight"),
        *optimizers(columns),
        _total(columns, counted),
    ]
    return printable("    ".join(filter(None, parts)))


def total_members(columns: Columns) -> list[int]:
    """Columns that make up the model: no buffers, and of a normalized weight the effective one, not its parts."""
    return [n for n, param in enumerate(columns.params) if param.role != "buffer" and param.part not in ("g", "v")]


def total(columns: Columns) -> tuple[float, float]:
    """l2 norm of the whole model at the first and the last record."""
    lengths = together(columns, total_members(columns))
    return (float(lengths[0]), float(lengths[-1])) if lengths.size else (math.nan, math.nan)


def _total(columns: Columns, counted: Sequence[int]) -> str:
    if not counted or not len(columns.steps):
        return ""
    first, last = total(columns)
    return f"total l2 {length(first)}" + (f" -> {length(last)}" if len(columns.steps) > 1 else "")


def optimizers(columns: Columns) -> list[str]:
    """One entry per optimizer: "AdamW lr 0.001 -> 1e-05 wd 0.01/0"."""
    known: Sequence[Mapping[str, Any]] = columns.meta.get("optimizers") or ()
    courses = [_course(columns.scalar("lr")), *[""] * len(known)]  # the first optimizer's rate is logged as "lr"
    return [_optimizer(one, course) for one, course in zip(known, courses, strict=False)]


def _optimizer(one: Mapping[str, Any], course: str) -> str:
    groups = one.get("groups") or ()
    rates, decays = (
        list(dict.fromkeys(_short(group[key]) for group in groups if group.get(key) is not None))
        for key in ("lr", "weight_decay")
    )
    rate = course if course and len(rates) == 1 else _few(rates)
    words = [str(one.get("name", "optimizer")), rate and f"lr {rate}", decays and f"wd {_few(decays)}"]
    return " ".join(word for word in words if word)


def _few(values: Sequence[str]) -> str:
    return "/".join(values) if len(values) <= 3 else f"{values[0]}/../{values[-1]} ({len(values)} groups)"


def _course(rates: NDArray[np.float64]) -> str:
    known = rates[np.isfinite(rates)]
    return f"{known[0]:.3g} -> {known[-1]:.3g}" if known.size and known[0] != known[-1] else ""


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def remarks(columns: Columns, walls: NDArray[np.float64]) -> list[str]:
    """How the run ended unless it simply finished, and by which rule steps were left out."""
    lines = [_ending(columns, walls)]
    steps = int(columns.meta.get("steps") or columns.last)
    every = str(columns.meta.get("every") or "")
    if every and int(columns.trained.sum()) < steps:
        lines.append(f"recorded: {every.removeprefix('auto: ')}{' (auto)' if every.startswith('auto: ') else ''}")
    return [printable(line) for line in lines if line]


def _ending(columns: Columns, walls: NDArray[np.float64]) -> str:
    if not len(columns.steps):
        return "nothing recorded yet"
    if not columns.meta.get("finished"):
        ago = duration(time.time() - float(walls[-1])) if len(walls) else "unknown time"
        return f"not closed: still running, or killed; last record at step {columns.last:,}, {ago} ago"
    end = str(columns.meta.get("end") or "finished")
    if end in ("finished", "interpreter exit"):
        return ""
    reason = {"interrupted": "interrupted", "stopped": f"recording stopped: {columns.meta.get('error', '')}"}
    if end.startswith("error"):
        what = end.partition(": ")[2]
        return f"the run ended with an error after step {columns.last:,}{what and f': {what}'}"
    return f"{reason.get(end, end)} after step {columns.last:,}"


def tied(params: Sequence[Param]) -> list[str]:
    """One entry per tensor with several names."""
    return [printable(" = ".join((param.name, *param.aliases))) for param in params if param.aliases]
