"""NaN and infinity: the first step at which they were seen, where, and how many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from normkit.diagnose.columns import Columns
from normkit.diagnose.words import listed, verb
from normkit.types import Finding

if TYPE_CHECKING:
    from normkit.diagnose.columns import Flags

NOUNS = {"weight": "weights", "grad": "gradient", "update": "update"}


def non_finite(columns: Columns) -> list[Finding]:
    """An entry that is NaN or infinite, in a weight, a gradient or an update; counted, so the threshold is one.

    Buffers are left alone: attention masks are infinite on purpose.
    """
    bad = {quantity: _bad(columns, quantity) for quantity in NOUNS}
    anywhere = np.logical_or.reduce([flags.any(axis=1) for flags in bad.values()])
    if not anywhere.any():
        return []
    first = int(np.argmax(anywhere))
    weights_hit = bool(bad["weight"].any())
    names = tuple(columns.tensors[n] for n in np.flatnonzero(np.logical_or.reduce(list(bad.values())).any(axis=0)))
    return [
        Finding(
            rule="non-finite",
            severity="error" if weights_hit else "warning",
            text=f"{_first_seen(columns, bad, first)} {_since(columns, bad['weight'])}",
            remedy=_remedy(columns, bad, first),
            tensors=names,
            step=int(columns.steps[first]),
            evidence={"step": int(columns.steps[first]), "tensors": len(names)},
        )
    ]


def _bad(columns: Columns, quantity: str) -> Flags:
    entries = columns.matrix("nonfinite", quantity)
    watched = np.array([param.role != "buffer" for param in columns.params], dtype=bool)
    flags: Flags = (np.nan_to_num(entries) > 0) & watched
    return flags


def _first_seen(columns: Columns, bad: dict[str, Flags], first: int) -> str:
    """The first record with a bad entry, and what was bad in it: a gradient goes before the weights it spoils."""
    quantity = next(quantity for quantity in ("grad", "update", "weight") if bad[quantity][first].any())
    hit = np.flatnonzero(bad[quantity][first])
    entries = int(columns.matrix("nonfinite", quantity)[first, hit[0]])
    step = int(columns.steps[first])
    when = f"in step {step:,}" if step else "before training"
    before = f" (the record before, step {int(columns.steps[first - 1]):,}, was finite)" if first else ""
    names = [columns.tensors[n] for n in hit]
    count = columns.params[int(hit[0])].count
    share = f"{entries:,} of {count:,} entries" if entries <= count else f"{entries:,} entries"
    of = f" of {names[0]}" if len(names) > 1 else ""
    return f"NaN or infinity {when} in the {NOUNS[quantity]} of {listed(names)}: {share}{of}{before}."


def _since(columns: Columns, weights: Flags) -> str:
    hit = weights.any(axis=1)
    if not hit.any():
        return "The weights stayed finite."
    spoiled = [name for name, at_end in zip(columns.tensors, weights[-1], strict=True) if at_end]
    if not spoiled:
        return f"The weights were hit in step {int(columns.steps[np.argmax(hit)]):,} and are finite again."
    return f"At the end {len(spoiled):,} of {len(columns.tensors):,} tensors {verb(spoiled, 'is', 'are')} hit."


def _remedy(columns: Columns, bad: dict[str, Flags], first: int) -> str:
    if not columns.steps[first]:
        return "The weights came so from their initialization or checkpoint."
    if bad["weight"].any():
        return "Look at the loss of that step; lower the learning rate, or clip the gradients."
    return "Look at the loss of that step; something kept the bad gradient from the weights."
