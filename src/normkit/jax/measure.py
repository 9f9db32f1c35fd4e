"""What is known of a step: stats from the jitted function, or trees of arrays whose sums are dispatched here."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from normkit.jax.late import Fetched, Part
from normkit.jax.listing import Listing, aligned, without_unknown
from normkit.jax.traced import StepStats, columns_of, measured, refuse_gaps
from normkit.ops.jax import refuse_absent
from normkit.recording.packet import Piece


@dataclass(frozen=True)
class Taken:
    """Stats of one step; of a stack of steps the one at `place`."""

    stats: StepStats
    place: int | None = None

    def alive(self) -> bool:
        """Are the numbers there still?"""
        return not any(matrix.is_deleted() for _, matrix, _ in self.stats.matrices())

    def found(self) -> list[Taken]:
        """Itself."""
        return [self]

    def pieces(self, what: Sequence[str], places: Sequence[int]) -> list[Piece]:
        """The matrices of the quantities named, their columns put to their `places`; -1 is for none."""
        pieces = []
        for quantity, matrix, columns in self.stats.matrices():
            if quantity in what:
                taken = [i for i, column in enumerate(columns) if places[column] >= 0]
                late = Part(Fetched(matrix), None if len(taken) == len(columns) else taken, self.place)
                pieces.append(Piece(late, np.array([places[columns[i]] for i in taken], np.intp), (quantity,)))
        return pieces


class Kept:
    """Trees of arrays that live as long as somebody else keeps them."""

    def __init__(self, trees: Mapping[str, Any], plans: Plans) -> None:
        leaves, self._structure = jax.tree.flatten(trees)
        self._leaves = [_held(leaf) for leaf in leaves]
        self._plans = plans

    def alive(self) -> bool:
        """Are all arrays there still?"""
        arrays = [ref() for ref in self._leaves if isinstance(ref, weakref.ref)]
        return not any(array is None or array.is_deleted() for array in arrays)

    def found(self) -> list[Taken]:
        """Their sums, dispatched where the arrays are.

        Raises: ArgumentError for trees that do not match, traced arrays and deleted ones, by their names.
        """
        leaves = [ref() if isinstance(ref, weakref.ref) else ref for ref in self._leaves]
        return self._plans.sums(leaves, self._structure)


class Plans:
    """Where the arrays of a listing stand among the leaves of trees, found once for each structure."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._known: dict[Hashable, dict[str, list[Any]]] = {}

    def sums(self, leaves: Sequence[Any], structure: Any) -> list[Taken]:
        """The sums of the leaves that the listing has, for each set of devices that arrays lie on."""
        key = (structure, *(getattr(leaf, "shape", None) for leaf in leaves))
        if key not in self._known:
            self._known[key] = self._plan(leaves, structure)
        plan = self._known[key]
        lists = {what: jax.tree.map(lambda i: leaves[i], order) for what, order in plan.items()}
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            self._refuse_absent(lists)
        if "before" in lists:
            refuse_gaps(self._listing, lists)
        try:
            return [Taken(_dispatched(self._listing, lists))]
        except (ValueError, RuntimeError):  # a deleted array, or several sets of devices; it names no tensor
            self._refuse_absent(lists)
        return [Taken(_dispatched(self._listing, part)) for part in _by_devices(lists)]

    def _plan(self, leaves: Sequence[Any], structure: Any) -> dict[str, list[Any]]:
        """The same trees with numbers in place of arrays, walked; a normalized weight has two."""
        marks = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if _is_array(leaf) else leaf for leaf in leaves]
        places = {id(mark): i for i, mark in enumerate(marks)}
        trees = jax.tree.unflatten(structure, marks)
        lists = {what: aligned(self._listing, tree, what, "the recording") for what, tree in trees.items()}
        lists = without_unknown(lists)
        refuse_gaps(self._listing, lists)
        return {what: jax.tree.map(lambda mark: places[id(mark)], order) for what, order in lists.items()}

    def _refuse_absent(self, lists: Mapping[str, Sequence[Any]]) -> None:
        for what, arrays in lists.items():
            for param, item in zip(self._listing.params, arrays, strict=True):
                for array in jax.tree.leaves(item):
                    refuse_absent(array, f"{what}: {param.name}")


def _held(leaf: Any) -> Any:
    """A reference to an array of jax's; of NumPy's, which its owner may change in place, a copy."""
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    return weakref.ref(leaf) if isinstance(leaf, jax.Array) else leaf


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _by_devices(lists: Mapping[str, Sequence[Any]]) -> list[dict[str, list[Any]]]:
    """The lists, once for each set of devices, with None for arrays that lie elsewhere."""
    found: dict[frozenset[Any], set[int]] = {}
    for arrays in lists.values():
        for i, x in enumerate(arrays):
            for part in jax.tree.leaves(x)[:1]:  # both parts of a normalized weight lie together
                devices = frozenset(part.devices()) if isinstance(part, jax.Array) else frozenset()
                found.setdefault(devices, set()).add(i)
    return [
        {what: [x if i in here else None for i, x in enumerate(arrays)] for what, arrays in lists.items()}
        for here in found.values()
    ]


def _dispatched(listing: Listing, lists: Mapping[str, Sequence[Any]]) -> StepStats:
    there = {what: arrays for what, arrays in lists.items() if any(x is not None for x in arrays)}
    matrices = measured(there, listing.groups)
    return StepStats(**matrices, listing=listing, columns=columns_of(there, listing.groups))
