"""The lines above the table: what was recorded, of what, and how the run ended."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from normkit.diagnose import Columns, Source, findings
from normkit.diagnose.columns import items
from normkit.report.digits import duration, length, ordinal, plural, size
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


def findings_of(recording: Run, columns: Columns) -> list[Finding]:
    """As stored at the run's end, else found now, in the columns that the table is made of: each is read once."""
    return recording.findings() if "findings" in recording.meta else findings(columns)


def headline(run: Run) -> str:
    """How many of how many steps, and where: the line that a recorder says at its end."""
    records = int((run.steps > 0).sum())
    what = f"{records:,} of {plural(total_steps(run), 'step')} x {plural(len(run.tensors), 'tensor')}"
    return printable(f"normkit: recorded {what} in {shown(run.path)}")


def total_steps(run: Source | Columns) -> int:
    """Optimizer steps of the run as far as is known: those that were counted, or the last one recorded."""
    counted = run.meta.get("steps")
    return max(counted if isinstance(counted, int) else 0, int(run.steps[-1]) if len(run.steps) else 0)


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
    known = items(columns.meta.get("optimizers"), dict)
    courses = [_course(columns.scalar("lr")), *[""] * len(known)]  # the first optimizer's rate is logged as "lr"
    return [_optimizer(one, course) for one, course in zip(known, courses, strict=False)]


def _optimizer(one: Mapping[str, Any], course: str) -> str:
    groups = items(one.get("groups"), dict)
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
    """How the run ended unless it simply finished, where it was resumed, and by which rules steps were left out."""
    meta = columns.meta
    every = _every(str(meta.get("every") or "")) if int(columns.trained.sum()) < total_steps(columns) else ""
    kept = "; ".join(filter(None, (every, _thinned(meta) or (every and _budget(meta)))))
    lost = meta.get("dropped")
    gone = f"{plural(lost, 'record')} lost, as the disk did not take them" if isinstance(lost, int) and lost else ""
    lines = [_ending(columns, walls), _resumed(meta), gone, kept and f"recorded: {kept}"]
    return [printable(line) for line in lines if line]


def _every(rule: str) -> str:
    return f"{rule.removeprefix('auto: ')}{' (auto)' if rule.startswith('auto: ') else ''}"


def _thinned(meta: Mapping[str, Any]) -> str:
    """What is left of the older records of a run that outgrew its budget."""
    match meta.get("thinned"):
        case {"stride": int(stride), "before": int(before)}:
            limit = _budget(meta)
            return f"every {ordinal(stride)} record before step {before:,} kept{limit and f' ({limit})'}"
    return ""


def _budget(meta: Mapping[str, Any]) -> str:
    budget = meta.get("budget")
    return f"budget {size(budget)}" if isinstance(budget, int) else ""


def _resumed(meta: Mapping[str, Any]) -> str:
    """Where the run was gone on with; its first attempt is the first of the list."""
    later = items(meta.get("attempts"), dict)[1:]
    steps = [f"{began:,}" for began in items([one.get("began") for one in later], int)]
    if not steps:
        return ""
    often = f"resumed {len(steps):,} times, last at step" if len(steps) > 1 else "resumed at step"
    return f"{often} {steps[-1]} (attempt {len(steps) + 1:,})"


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
