"""Which parameters a verb touches: one small language of roles, names, layer classes and callables.

    "kernel"              a role (kernel, bias, scale, embedding, buffer, other), or "all"
    "encoder.*.attn.*"    a name pattern: case counts, `*` spans dots, it may start at any dot, `/` equals `.`
    "!head.*", "!bias"    names or a role to take away, last
    Conv2d                a layer class, subclasses included
    callable              Param -> bool
    [...]                 a list of these: roles are OR-ed; names, classes and callables are OR-ed; the two are AND-ed

Names and classes without a role keep the verb's default role; a callable without a role decides alone. A role takes
trainable parameters only ("buffer" apart); "all" takes everything: buffers, other and frozen ones too. A single
parameter called `bias` is reached by "*.bias", since "bias" is the role. What reaches nothing is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from normkit.errors import ArgumentError
from normkit.select.misses import refuse_misses
from normkit.select.rules import Parsed, barred, parse
from normkit.types import Param

FOLD_ABOVE = 40  # rows; a longer table prints layers that differ only in their numbers as one row
COLUMNS = ("parameter", "role", "role from", "chosen (+) or not (-)")


@dataclass(frozen=True)
class Row:
    """One parameter in the table: its role and where that came from, whether it is chosen, why, what is told of it."""

    name: str
    role: str
    role_from: str
    chosen: bool
    why: str
    told: str = ""  # in numbers: what a verb does with it


@dataclass(frozen=True)
class Explanation:
    """The table behind a selection: `rows` holds every parameter, `str()` prints it, folding repeated layers.

    `what` is said in its last line of those that are chosen, such as "decay".
    """

    rows: tuple[Row, ...]
    what: str = "chosen"

    def __str__(self) -> str:
        folded = _folded(self.rows) if len(self.rows) > FOLD_ABOVE else [_cells(row.name, row) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(COLUMNS, *folded, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in (COLUMNS, *folded)
        ]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """How many of how many, and why the others are not."""
        chosen = sum(row.chosen for row in self.rows)
        counts = Counter(row.why for row in self.rows if not row.chosen)
        left = ", ".join(f"{count} {why}" for why, count in counts.most_common())
        return f"{chosen} of {len(self.rows)} parameters {self.what}" + (f"; not: {left}" if left else "")


@dataclass(frozen=True)
class Selection:
    """What a rule chose among `params`; `verdicts` says for each of them whether and why."""

    params: tuple[Param, ...]
    verdicts: tuple[tuple[bool, str], ...]

    @cached_property
    def chosen(self) -> tuple[Param, ...]:
        """The chosen parameters, in their order."""
        return tuple(p for p, (taken, _) in zip(self.params, self.verdicts, strict=True) if taken)

    def explain(self) -> Explanation:
        """The table of parameter, role, where the role came from, and what happens to it."""
        pairs = zip(self.params, self.verdicts, strict=True)
        return Explanation(tuple(Row(_with_aliases(p), p.role, p.rule, taken, why) for p, (taken, why) in pairs))


def select(params: Sequence[Param], rule: object, *, default: str | tuple[str, ...]) -> Selection:
    """Choose among `params` by `rule`; None chooses by `default`: a role, roles, or "trainable" (whatever the role).

    Raises: ArgumentError for what is no rule, and for each pattern, class, role or "!" that reaches nothing.

    >>> conv = Param("conv1.weight", (16, 1, 3, 3), "float32", "kernel")
    >>> bias = Param("conv1.bias", (16,), "float32", "bias")
    >>> [p.name for p in select([conv, bias], "conv*", default="kernel").chosen]
    ['conv1.weight']
    >>> [p.name for p in select([conv, bias], ["bias", "conv*"], default="kernel").chosen]
    ['conv1.bias']
    >>> print(select([conv, bias], "conv*", default="kernel").explain())
    parameter     role    role from  chosen (+) or not (-)
    conv1.weight  kernel             + 'conv*', role kernel by default
    conv1.bias    bias               - role bias
    1 of 2 parameters chosen; not: 1 role bias
    """
    parsed = parse(rule)
    fallback = (default,) if isinstance(default, str) else tuple(default)
    refuse_misses(params, parsed, fallback)
    selection = Selection(tuple(params), tuple(_verdict(p, parsed, fallback) for p in params))
    if rule is not None and params and not selection.chosen:
        raise ArgumentError(f"select={parsed.text} leaves nothing of {len(params)} parameters: {_reasons(selection)}")
    return selection


def _verdict(param: Param, rule: Parsed, default: Sequence[str]) -> tuple[bool, str]:
    met = [term for term in rule.terms if term.meets(param)]
    if rule.terms and not met:
        return False, "not matched"
    why = barred(param, rule.roles or default)
    free = next((term for term in met if term.kind == "callable" and not rule.roles), None)
    if why and not free:
        return False, why
    if gone := next((term for term in rule.away if term.meets(param)), None):
        return False, f"taken away by {gone.text}"
    if free and why:
        return True, free.text
    role = _role_reason(param, rule, default)
    return True, f"{met[0].text}, {role}" if met else role


def _role_reason(param: Param, rule: Parsed, default: Sequence[str]) -> str:
    roles = rule.roles or default
    word = "all" if "all" in roles else "trainable" if "trainable" in roles else f"role {param.role}"
    return word if rule.roles else f"{word} by default"


def _reasons(selection: Selection) -> str:
    counts = Counter(why for taken, why in selection.verdicts if not taken)
    return ", ".join(f"{count} {why}" for why, count in counts.most_common())


def _with_aliases(param: Param) -> str:
    return " = ".join((param.name, *param.aliases))


def _cells(name: str, row: Row) -> tuple[str, ...]:
    told = f": {row.told}" if row.told else ""
    return (name, row.role, row.role_from, f"{'+' if row.chosen else '-'} {row.why}{told}")


def _folded(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """One line for rows that differ only in the numbers of their names: `layers.*.weight (12)`."""
    alike: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        shape = re.sub(r"(?<![^.])\d+(?![^.])", "*", row.name)
        alike.setdefault(_cells(shape, row), []).append(row)
    return [
        _cells(same[0].name if len(same) == 1 else f"{cells[0]} ({len(same)})", same[0])
        for cells, same in alike.items()
    ]
