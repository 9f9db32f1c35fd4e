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


def grouped(params: Sequence[Param], per: str | Mapping[str, str], *, again: bool = False) -> list[Grouped]:
    """What `per` asks for: "out" or "in" for every tensor that has such axes and more besides, or a dict of rules.

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


def _asked(params: Sequence[Param], per: str | Mapping[str, str]) -> list[tuple[int, str, tuple[int, ...]]]:
    if not isinstance(per, Mapping):
        return _with_axes(params, params, _kind(per))
    asked = []
    for rule, kind in per.items():
        found = _with_axes(params, select(params, rule, default="all").chosen, _kind(kind))
        if not found and kind in KINDS:
            raise ArgumentError(f"per={{{rule!r}: {kind!r}}}: no tensor of these has {kind!r} axes and others besides")
        asked += found
    return list(dict.fromkeys(asked))


def _with_axes(params: Sequence[Param], chosen: Sequence[Param], kind: str) -> list[tuple[int, str, tuple[int, ...]]]:
    """Those that have such axes, and more besides: a group of one entry is no group."""
    places = {param.name: place for place, param in enumerate(params)}
    axes = [(p, {"out": p.out_axes, "in": p.in_axes}.get(kind)) for p in chosen]
    return [(places[p.name], kind, known) for p, known in axes if known and len(p.shape) > len(known)]


def _kind(per: Any) -> str:
    if per not in ("tensor", *KINDS):
        raise ArgumentError(
            f"per={in_brief(per)}: expected 'tensor', 'out', 'in', or a dict from tensors to these: {{'head.*': 'out'}}"
        )
    return str(per)
