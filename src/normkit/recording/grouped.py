"""Groups of a tensor that have columns of their own in a recording: rows of a matrix, filters of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.select import select
from normkit.types import Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = ("out", "in")
Per = str | int | Mapping[str, str | int]


@dataclass(frozen=True)
class Grouped:
    """The tensor at `place`, in `count` groups: one per index of its `axes`. Their columns begin at `start`."""

    place: int
    axes: tuple[int, ...]
    per: str
    count: int
    start: int

    @property
    def columns(self) -> NDArray[np.intp]:
        return np.arange(self.start, self.start + self.count)


def described_groups(params: Sequence[Param], groups: Sequence[Grouped]) -> list[tuple[Param, str, int]]:
    """What a layout needs to know of them."""
    return [(params[each.place], each.per, each.count) for each in groups]


def grouped(params: Sequence[Param], per: Per, *, again: bool = False) -> list[Grouped]:
    """What `per` asks for: "out" or "in" for every tensor that has such axes and more besides, or a dict of rules.

    In place of these words may stand the number of the axis that is kept: 0 is one group per layer of a stack of them.

    Raises: ArgumentError for another word, and for a rule that matches nothing or nothing with such axes. A model that
    changed in mid-run (`again`) may have lost what a rule meant.
    """
    found: list[Grouped] = []
    start = len(params)
    try:
        asked = _asked(params, per)
    except ArgumentError:
        if not again:
            raise
        asked = []
    for place, kind, axes in asked:
        count = int(np.prod([params[place].shape[axis] for axis in axes]))
        found.append(Grouped(place, axes, kind, count, start))
        start += count
    return found


def _asked(params: Sequence[Param], per: Per) -> list[tuple[int, str, tuple[int, ...]]]:
    if not isinstance(per, Mapping):
        return _with_axes(params, params, _kind(per))
    asked = []
    for rule, kind in per.items():
        found = _with_axes(params, select(params, rule, default="all").chosen, _kind(kind))
        if not found and kind in KINDS:
            raise ArgumentError(f"per={{{rule!r}: {kind!r}}}: no tensor of these has {kind!r} axes and others besides")
        if not found and kind != "tensor":
            raise ArgumentError(f"per={{{rule!r}: {kind}}}: no tensor of these has an axis {kind} and others besides")
        asked += found
    return list(dict.fromkeys(asked))


def _with_axes(params: Sequence[Param], chosen: Sequence[Param], kind: str) -> list[tuple[int, str, tuple[int, ...]]]:
    """Those that have such axes, and more besides: a group of one entry is no group."""
    places = {param.name: place for place, param in enumerate(params)}
    axes = [(p, {"out": p.out_axes, "in": p.in_axes}.get(kind, _numbered(kind, len(p.shape)))) for p in chosen]
    return [(places[p.name], kind, known) for p, known in axes if known and len(p.shape) > len(known)]


def _numbered(kind: str, rank: int) -> tuple[int, ...] | None:
    """The axis that a number means in a tensor of this rank, if it has so many."""
    axis = int(kind) if kind.lstrip("-").isdecimal() else rank
    return (axis % rank,) if -rank <= axis < rank else None


def _kind(per: Any) -> str:
    if isinstance(per, int) and not isinstance(per, bool):
        return str(per)
    if per not in ("tensor", *KINDS):
        raise ArgumentError(
            f"per={in_brief(per)}: expected 'tensor', 'out', 'in', an axis number, or a dict from tensors to these: "
            "{'head.*': 'out'}"
        )
    return str(per)
