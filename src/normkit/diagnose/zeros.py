"""Tensors that are zero in every entry."""

from __future__ import annotations

import numpy as np

from normkit.diagnose.columns import Columns
from normkit.diagnose.words import listed, tensors, verb
from normkit.types import Finding


def all_zero(columns: Columns) -> list[Finding]:
    """A kernel, embedding or scale without a non-zero entry at the last record, after training has begun.

    A scale or matrix that starts at zero on purpose (residual branches, adapters) is reported only if it stays there.
    """
    if not columns.trained.any():
        return []
    short = [n for n in _watched(columns) if columns.matrix("l2")[-1, n] == 0]  # or its squares are: underflow
    if not short:
        return []
    largest = columns.matrix("linf")
    zero = [n for n in short if largest[-1, n] == 0]
    from_start = [n for n in zero if np.nanmax(largest[:, n]) == 0]
    later = [n for n in zero if n not in set(from_start)]
    return _never_left(columns, from_start) + _fell(columns, later)


def _watched(columns: Columns) -> list[int]:
    roles = ("kernel", "embedding", "scale")
    parts = ("whole", "effective")
    return [n for n, param in enumerate(columns.params) if param.role in roles and param.count and param.part in parts]


def _never_left(columns: Columns, which: list[int]) -> list[Finding]:
    if not which:
        return []
    names = tuple(columns.tensors[n] for n in which)
    still = f"zero in every entry, from the first record to step {columns.last:,}"
    text = f"{listed(names)} {verb(names, 'is', 'are')} {still}."
    remedy = "A zero tensor is left only if a gradient reaches it: one behind another zero tensor never gets any."
    return [_finding(names, text, remedy, columns.last)]


def _fell(columns: Columns, which: list[int]) -> list[Finding]:
    if not which:
        return []
    names = tuple(columns.tensors[n] for n in which)
    largest = columns.matrix("linf")
    rows = [int(np.flatnonzero(np.nan_to_num(largest[:, n], nan=1.0))[-1]) + 1 for n in which]
    step = int(columns.steps[min(rows)])
    since = f"since step {step:,}" if len(which) == 1 else f"the first since step {step:,}"
    text = f"{listed(names)} {verb(names, 'has', 'have')} become zero in every entry, {since}."
    remedy = "Decay, pruning or a constraint took all of it; the layer gives the same output for every input."
    return [_finding(names, text, remedy, step)]


def _finding(names: tuple[str, ...], text: str, remedy: str, step: int) -> Finding:
    evidence = {"tensors": tensors(len(names)), "step": step}
    return Finding("all-zero", "warning", text, remedy, names, step=step, evidence=evidence)
