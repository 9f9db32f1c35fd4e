"""Weights made of a length g and a direction v: does the one still leave the other room to learn?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from normkit.diagnose.columns import Columns, items
from normkit.diagnose.words import listed, number, verb
from normkit.norms import balance
from normkit.types import Finding

FROZEN = 0.5  # R of groups of two entries is 1 at the start, and every step of SGD lengthens v
DRIFT = 4.0  # of the turning of v at the same gradient, since |v| has doubled or halved
SOURCE = "Salimans & Kingma 2016, arXiv:1602.07868"


@dataclass(frozen=True)
class Balance:
    """R of one normalized weight at the first and the last record that has both parts, and the lengths of v there."""

    name: str
    g: int  # columns
    v: int
    entries: int  # per group
    first: float
    last: float
    lengths: tuple[float, float]

    @property
    def drift(self) -> float:
        """How many times smaller R has become by the length of v alone: its rotation goes as g / |v|^2."""
        return (self.lengths[1] / self.lengths[0]) ** 2


def balances(columns: Columns) -> list[Balance]:
    """One per weight whose parts are on record, where R is a number; a zero g or v has none."""
    found = (_balance(columns, name, g, v) for name, g, v in parts(columns))
    return [one for one in found if one is not None]


def parts(columns: Columns) -> list[tuple[str, int, int]]:
    """Name of each normalized weight and the columns of its g and v."""
    place = {name: n for n, name in enumerate(columns.tensors)}
    names = {n: param.name.removesuffix(".v") for n, param in enumerate(columns.params) if param.part == "v"}
    return [(name, place[f"{name}.g"], v) for v, name in names.items() if f"{name}.g" in place]


def frozen_direction(columns: Columns) -> list[Finding]:
    """R below `FROZEN`, or changed by a factor of `DRIFT` through |v| alone, at the last record of a run that trained.

    The model is of SGD, with momentum or without; where another optimizer is on record, or none, nothing is said.
    """
    if not columns.trained.any() or not _is_sgd(columns):
        return []
    found = balances(columns)
    frozen = [one for one in found if one.last < FROZEN]
    drifted = [one for one in found if one not in frozen and not 1 / DRIFT < one.drift < DRIFT]
    return [*_frozen(columns, frozen), *_drifted(columns, drifted)]


def _balance(columns: Columns, name: str, g: int, v: int) -> Balance | None:
    there = np.flatnonzero(columns.present()[:, [g, v]].all(axis=1))
    counts = columns.params[g].count, columns.params[v].count
    if not there.size or not counts[0] or counts[1] % counts[0]:
        return None
    rows, entries = there[[0, -1]], counts[1] // counts[0]
    lengths = columns.matrix("l2")
    first, last = balance(lengths[rows, g], lengths[rows, v], entries).tolist()
    if not (np.isfinite(first) and np.isfinite(last) and first > 0 and last > 0):
        return None
    of_v = lengths[rows, v].tolist()
    return Balance(name, g, v, entries, first, last, (of_v[0], of_v[1]))


def _is_sgd(columns: Columns) -> bool:
    names = [str(one.get("name", "")) for one in items(columns.meta.get("optimizers"), dict)]
    return bool(names) and all("sgd" in name.lower() for name in names)


def _frozen(columns: Columns, which: list[Balance]) -> list[Finding]:
    if not which:
        return []
    worst = min(which, key=lambda one: one.last)
    names = tuple(one.name for one in which)
    of = f" of {worst.name}" if len(which) > 1 else ""
    text = (
        f"{listed(names)} {verb(names, 'turns', 'turn')} slower than {verb(names, 'its', 'their')} length changes: "
        f"R{of} is {number(worst.last)}, at the first record {number(worst.first)}; 1 is balanced."
    )
    factor = number(1 / worst.last**0.5)
    remedy = (
        f"v is too long for its steps to turn it. Divide v by {factor}{of and f' in {worst.name}'}: "
        "the weight g v / |v| stays the same."
    )
    return [_finding(columns, (text, remedy), which, worst)]


def _drifted(columns: Columns, which: list[Balance]) -> list[Finding]:
    if not which:
        return []
    worst = max(which, key=lambda one: abs(np.log(one.drift)))
    names = tuple(one.name for one in which)
    upto, of = ("up to ", f" of {worst.name}") if len(which) > 1 else ("", "")
    pace = "slower" if worst.drift > 1 else "faster"
    times = number(max(worst.drift, 1 / worst.drift))
    before, after, first, last = map(number, (*worst.lengths, worst.first, worst.last))
    text = (
        f"{listed(names)} {verb(names, 'turns', 'turn')} {upto}{times} times {pace} than at the first record, learning "
        f"rate and g alike: |v|{of} {before} -> {after}, R {first} -> {last}."
    )
    why = "Every step of SGD lengthens v." if worst.drift > 1 else "Decay shortens v."
    remedy = f"{why} Scale v back to undo it: the weight g v / |v| stays the same."
    return [_finding(columns, (text, remedy), which, worst)]


def _finding(columns: Columns, said: tuple[str, str], which: list[Balance], worst: Balance) -> Finding:
    frozen = worst.last < FROZEN
    return Finding(
        rule="direction-frozen" if frozen else "direction-drift",
        severity="warning" if frozen else "note",
        text=said[0],
        remedy=said[1],
        tensors=tuple(one.name for one in which),
        basis="model",
        source=SOURCE,
        step=columns.last,
        evidence={"r_first": worst.first, "r_last": worst.last, "entries": worst.entries, "tensors": len(which)},
    )
