"""Tensors that training does not move, told apart by the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normkit.diagnose.balance import parts
from normkit.diagnose.columns import Columns, items
from normkit.diagnose.words import listed, verb
from normkit.types import Finding

if TYPE_CHECKING:
    from normkit.diagnose.columns import Flags

LEAST = 2  # steps: the first one of a warmup has learning rate 0


def untrained(columns: Columns) -> list[Finding]:
    """Trainable tensors that were given to no optimizer, as the recorder noted them."""
    names = tuple(items(columns.meta.get("untrained"), str))
    if not names:
        return []
    text = f"{listed(names)} {verb(names, 'is', 'are')} trainable but in no optimizer, so no step changes {_it(names)}."
    remedy = f"Give {_it(names)} to the optimizer, or freeze {_it(names)}."
    return [Finding("in-no-optimizer", "warning", text, remedy, names, evidence={"tensors": len(names)})]


def nothing_moves(columns: Columns) -> list[Finding]:
    """No trainable tensor differs between any two records."""
    still, watched = _still(columns), _watched(columns)
    if columns.last < LEAST or not watched.any() or not still[watched].all():
        return []
    rates = columns.scalar("lr")[columns.trained]
    zero = rates.size and bool((np.nan_to_num(rates, nan=1.0) == 0).all())
    count = int(watched.sum())
    text = f"Nothing moved: all {count:,} trainable tensors are bit for bit the same after {columns.last:,} steps."
    remedy = (
        "The learning rate is 0 in every record."
        if zero
        else "Check that the optimizer holds this model's own tensors."
    )
    return [Finding("nothing-moves", "error", text, remedy, step=columns.last, evidence={"lr_is_zero": bool(zero)})]


def never_updated(columns: Columns) -> list[Finding]:
    """Tensors of an optimizer that are the same in all records, while others move; one finding per reason."""
    still, watched = _still(columns), _watched(columns)
    if columns.last < LEAST or not watched.any() or still[watched].all():
        return []
    which = np.flatnonzero(still & watched)
    reasons = [_reason(columns, int(n)) for n in which]
    return [
        _finding(
            columns, tuple(columns.tensors[n] for n, why in zip(which, reasons, strict=True) if why == reason), reason
        )
        for reason in REASONS
        if reason in reasons
    ]


REASONS = {  # reason -> what was seen, what to do
    "no gradient": (
        "never {got} a gradient in {steps:,} steps and {did} not move",
        "The loss does not depend on {it}: check the forward pass for an unused layer or a detached tensor.",
    ),
    "zero gradient": (
        "{got} a gradient of exactly 0 in every record and {did} not move",
        "Something between {it} and the loss blocks it: a dead activation, a zero factor, a rounded-off value.",
    ),
    "no update": (
        "{got} gradients but no update in {steps:,} steps",
        "Check the learning rate of the optimizer group that trains {it}.",
    ),
    "unknown": ("{are} bit for bit the same after {steps:,} steps", "Check that the optimizer's step reaches {it}."),
}


def _finding(columns: Columns, names: tuple[str, ...], reason: str) -> Finding:
    seen, advice = REASONS[reason]
    never = reason == "no gradient"
    words = {
        "got": "got",
        "did": verb(names, "does", "do") if not never else "did",
        "are": verb(names, "is", "are"),
        "it": _it(names),
        "steps": columns.last,
    }
    text = f"{listed(names)} {seen.format(**words)}."
    return Finding(
        "never-updated",
        "warning",
        text,
        advice.format(**words),
        names,
        step=columns.last,
        evidence={"reason": reason, "tensors": len(names)},
    )


def _reason(columns: Columns, n: int) -> str:
    there = columns.present("grad")
    if not there[columns.trained].any():
        return "unknown"  # gradients were not recorded at all
    if not there[columns.trained, n].any():
        return "no gradient"
    largest = columns.matrix("linf", "grad")[there[:, n], n]
    return "zero gradient" if not largest.any() else "no update"


def _watched(columns: Columns) -> Flags:
    """Trainable, in an optimizer, not made of other tensors, and no direction of one entry, which cannot turn."""
    left_out = set(items(columns.meta.get("untrained"), str))
    left_out |= {columns.tensors[v] for _, g, v in parts(columns) if columns.params[g].count == columns.params[v].count}
    return np.array(
        [
            param.trainable and param.part != "effective" and param.role != "buffer" and param.name not in left_out
            for param in columns.params
        ],
        dtype=bool,
    )


def _still(columns: Columns) -> Flags:
    """Tensors whose sums are equal in all records and whose recorded updates are zero in every entry.

    Weights that move and come back to the same three sums between all records do not exist in practice; an update
    that is zero at the records alone could be one.
    """
    still = np.ones(len(columns.tensors), dtype=bool)
    if not len(columns.steps):
        return still
    there = columns.present()
    still &= there.sum(axis=0) >= 2  # one record shows no standstill
    start = np.argmax(there, axis=0)
    for kind in ("l2", "l1", "mean"):
        if not still.any():
            return still  # as in most runs: the other sums need not be read
        values = columns.matrix(kind)
        reference = np.take_along_axis(values, start[None, :], axis=0)
        still &= ((values == reference) | ~there).all(axis=0)
    if still.any():
        updates = columns.matrix("linf", "update")
        still &= ~(np.nan_to_num(updates, nan=0.0) != 0).any(axis=0)
    return still


def _it(names: tuple[str, ...]) -> str:
    return "it" if len(names) == 1 else "them"
