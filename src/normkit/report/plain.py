"""A recording as plain values, for programs: what `--json` prints."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from normkit.diagnose import Columns
from normkit.diagnose.balance import Balance
from normkit.report.heading import Run, findings_of, total, total_members, total_steps
from normkit.report.parts import among
from normkit.report.rows import row
from normkit.report.trend import slices
from normkit.types import Finding, Param

FORMAT = 1  # grows when a key changes its meaning or goes
KINDS = ("l1", "l2", "linf", "rms", "mean", "std", "zeros", "nonfinite")


def to_json(recording: Run, *, select: Collection[str] | None = None) -> dict[str, Any]:
    """Everything that `normkit show` says, unfolded; numbers that JSON does not know (NaN, infinity) are None.

    `tensors` has one entry per tensor with its norms at the first and the last record in which it exists; `balance` has
    R of each weight that is made of g and v (see `normkit.norms.balance`).
    """
    columns = Columns.of(recording)
    wanted = set(columns.tensors if select is None else select)
    first, last = total(columns)
    return {
        "format": FORMAT,
        "path": str(recording.path),
        "records": len(columns.steps),
        "steps": total_steps(recording),
        "recorded_steps": [int(step) for step in columns.steps],
        "meta": _plain(dict(columns.meta)),
        "total": {
            "weights": sum(columns.params[n].count for n in total_members(columns)),
            "l2_first": number(first),
            "l2_last": number(last),
        },
        "findings": [_finding(finding) for finding in findings_of(recording, columns)],
        "balance": [_balance(one) for one in among(columns, wanted)],
        "tensors": [_tensor(columns, n) for n, name in enumerate(columns.tensors) if name in wanted],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "text": finding.text,
        "remedy": finding.remedy,
        "tensors": list(finding.tensors),
        "basis": finding.basis,
        "source": finding.source,
        "step": finding.step,
        "evidence": _plain(dict(finding.evidence)),
    }


def _balance(one: Balance) -> dict[str, Any]:
    return {"name": one.name, "entries": one.entries, "first": number(one.first), "last": number(one.last)}


def _tensor(columns: Columns, n: int) -> dict[str, Any]:
    param = columns.params[n]
    known = np.flatnonzero(columns.present()[:, n])
    one = row(columns, param.name, [n])
    return {
        **described(param),
        "first": _norms(columns, n, int(known[0])) if known.size else None,
        "last": _norms(columns, n, int(known[-1])) if known.size else None,
        "change": number(one.change),
        "update_per_step": number(one.step),
        "trend": [None if mean is None else number(mean) for mean in slices(columns.steps, one.lengths, one.there)],
    }


def described(param: Param) -> dict[str, Any]:
    """What is known of a tensor as such."""
    return {
        "name": param.name,
        "aliases": list(param.aliases),
        "role": param.role,
        "layer": param.layer,
        "shape": list(param.shape),
        "dtype": param.dtype,
        "trainable": param.trainable,
        "part": param.part,
    }


def _norms(columns: Columns, n: int, record: int) -> dict[str, Any]:
    return {
        "step": int(columns.steps[record]),
        **{kind: number(float(columns.matrix(kind)[record, n])) for kind in KINDS},
    }


def number(value: float) -> float | None:
    """`value`, None where JSON has no word for it."""
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """`value` with only what JSON knows; anything else as its text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool | str) or value is None or isinstance(value, int):
        return value
    return number(value) if isinstance(value, float) else str(value)
