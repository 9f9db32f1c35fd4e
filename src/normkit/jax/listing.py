"""Which tensors a matrix of sums is of, and the trees beside the weights brought in their order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.jax.parts import is_normalized
from normkit.jax.walk import Located, walk
from normkit.recording.grouped import Grouped, Per, grouped
from normkit.select import select as select_params
from normkit.types import Param


class Listing:
    """The tensors in their order, and those stored in groups besides; two of the same content are equal.

    It is part of the structure of a jitted function's result, which jax compares and hashes.
    """

    def __init__(self, params: Sequence[Param], groups: Sequence[Grouped] = ()) -> None:
        self.params = tuple(params)
        self.groups = tuple(groups)

    @cached_property
    def places(self) -> dict[str, int]:
        """Name or alias -> place."""
        return {name: i for i, param in enumerate(self.params) for name in (param.name, *param.aliases)}

    def narrowed(self, rule: Any, per: Per) -> Listing:
        """Those of them that a rule chooses.

        Raises: ArgumentError for a rule that matches nothing, and for groups of which there are no sums.
        """
        if per != "tensor" and not self.groups:
            raise ArgumentError(f"record(per={in_brief(per)}): these stats are of whole tensors; give per= to nk.stats")
        chosen = select_params(self.params, rule, default="all" if rule is None else "trainable").chosen
        names = {param.name: place for place, param in enumerate(chosen)}
        groups, start = [], len(chosen)
        for each in self.groups:
            if (place := names.get(self.params[each.place].name)) is not None:
                groups.append(replace(each, place=place, start=start))
                start += each.count
        return Listing(chosen, groups)

    def columns_for(self, other: Listing, everything: Collection[str]) -> list[int]:
        """For each column of `other` the one here, -1 for none; `everything` names the tensors that are known.

        Raises: ArgumentError for a tensor that is not known, or of another shape here.
        """
        columns = []
        for param in other.params:
            place = self.places.get(param.name)
            if place is None and param.name not in everything:
                raise ArgumentError(
                    f"recorder(stats): {param.name} of shape {param.shape} is none of the {len(everything)} tensors "
                    "that this recorder began with; give each model its own recorder"
                )
            if place is not None and self.params[place].shape != param.shape:
                raise ArgumentError(
                    f"recorder(stats): {param.name} has shape {param.shape}, and in the recording "
                    f"{self.params[place].shape}"
                )
            columns.append(-1 if place is None else place)
        here = {(self.params[each.place].name, each.per): each for each in self.groups}
        for each in other.groups:
            found = here.get((other.params[each.place].name, each.per))
            columns += [-1] * each.count if found is None else found.columns.tolist()
        return columns

    @cached_property
    def _key(self) -> tuple[object, ...]:
        return (*((param.name, param.shape, param.dtype, param.role) for param in self.params), self.groups)

    @cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Listing) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"<{len(self.params)} tensors>"


def listed(located: Sequence[Located], rule: Any, per: Per = "tensor") -> Listing:
    """The chosen ones of a walk; with their groups where `per` asks for some.

    Raises: ArgumentError for a rule that matches nothing.
    """
    params = select_params([item.param for item in located], rule, default="trainable").chosen
    if not params:
        raise ArgumentError(f"none of the {len(located)} arrays given is trainable; select='all' takes them all")
    return Listing(params, grouped(params, per))


def aligned(listing: Listing, tree: Any, what: str, first: str) -> list[Any]:
    """The arrays of `tree` in the order of the listing; None where it has none.

    Raises: ArgumentError where it has a trainable tensor that is unknown, or one of another shape.
    """
    found: list[Any] = [None] * len(listing.params)
    located = walk(tree, what)
    for item in located:
        place = listing.places.get(item.param.name)
        if place is None:
            continue
        if item.param.shape != listing.params[place].shape:
            raise ArgumentError(
                f"{what}: {item.param.name} has shape {item.param.shape}, and {listing.params[place].shape} in {first}"
            )
        found[place] = item.array
    if all(array is None for array in found):
        names = ", ".join(item.param.name for item in located[:3])
        raise ArgumentError(
            f"{what} holds {names}, none of the {len(listing.params)} tensors taken from {first} "
            f"({listing.params[0].name}, ...); give trees of the same structure"
        )
    return found


def without_unknown(lists: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The lists without what nobody knows of a normalized weight: its gradient, and its update where w is not there."""
    unknown = {"grads"} if "params" in lists else {"grads", "updates"}
    known = {
        what: [None if what in unknown and is_normalized(x) else x for x in arrays] for what, arrays in lists.items()
    }
    return {what: arrays for what, arrays in known.items() if any(x is not None for x in arrays)}
