"""`stats`: the sums of every weight, gradient and update, taken inside the jitted step; a few numbers per tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax

from normkit.errors import ArgumentError
from normkit.jax.listing import Listing, aligned, listed, without_unknown
from normkit.jax.parts import Normalized, is_normalized, whole
from normkit.jax.walk import walk
from normkit.ops.jax import as_rows, float64, outside, refuse_unreadable, traced_sums_of_rows
from normkit.ops.jax_mesh import automatic, refuse_parts
from normkit.recording.grouped import Grouped
from normkit.types import SUMS

SQ, DOT = SUMS.index("sq"), SUMS.index("dot")

Columns = tuple[tuple[str, tuple[int, ...]], ...]  # per quantity


@dataclass(frozen=True)
class StepStats:
    """What `stats` returns: one small matrix of sums [sums][columns] per quantity, and which tensors these are of.

    A pytree: return it from the jitted step and hand it to the recorder. `columns` says which of the listing's columns
    each matrix has.
    """

    weight: Any
    grad: Any
    update: Any
    listing: Listing
    columns: Columns

    def matrices(self) -> list[tuple[str, Any, tuple[int, ...]]]:
        """Quantity, matrix and columns of each that there is."""
        return [(quantity, getattr(self, quantity), columns) for quantity, columns in self.columns]


jax.tree_util.register_dataclass(
    StepStats, data_fields=["weight", "grad", "update"], meta_fields=["listing", "columns"]
)


def stats(
    params: Any = None,
    grads: Any = None,
    updates: Any = None,
    *,
    before: Any = None,
    select: Any = None,
    per: str | Mapping[str, str | int] = "tensor",
) -> StepStats:
    """The sums (`types.SUMS`) of every weight w, gradient g and update u of a step; for use inside jit.

        updates = ...optimizer.update(grads, ...)
        new = optax.apply_updates(params, updates)
        return new, ..., nk.stats(params=new, grads=grads, updates=updates)

    params   w_t, the weights *after* the step; of a normalized one the weight itself is worked out besides g and v, and
             what the step added to it. Its gradient is not known: only g and v have one
    grads    g_t as the optimizer got it, a tree like params; `dot` is <w_{t-1}, g_t>, where the step is known
    updates  u_t, what was added to the weights (optax), a tree like params; `dot` is <w_{t-1}, u_t>. The old weights
             are taken to be w_t - u_t: <w_{t-1}, g> = <w_t, g> - <u, g>, <w_{t-1}, u> = <w_t, u> - |u|^2
    before   w_{t-1}, the weights before the step, in place of `updates`: u = w_t - w_{t-1} is then what really changed,
             taken in float64 (in bfloat16 most of an optimizer's update is lost when it is added). An nnx module is
             changed in place: before = nnx.clone(model), which costs nothing inside jit
    select   which tensors (docs: select); default: everything trainable
    per      {"blocks.*": 0} stores the sums of each layer of a scanned stack (axis 0 kept) besides; "out" or "in" those
             of each output or input unit

    Any of the three may be left out. The trees are dicts, flax (nnx or linen) or equinox; grads may lack tensors. All
    sums are float64 whatever jax_enable_x64 says, right to 1e-12; no gradient passes through, nothing is changed.

    Raises: ArgumentError, while jax traces, for nothing given, trees that do not match, complex weights, a bad rule,
    under jax.vmap, and in shard_map or pmap for arrays of which a device may see but a part.
    """
    if before is not None and updates is not None:
        raise ArgumentError(
            f"stats(updates=<{type(updates).__name__}>, before=<{type(before).__name__}>): give one of the two; "
            "before= says what was really added"
        )
    if before is not None and params is None:
        raise ArgumentError(f"stats(before=<{type(before).__name__}>) needs params=, the weights after the step")
    given = {"params": params, "grads": grads, "updates": updates}
    first = next((what for what, tree in given.items() if tree is not None), None)
    if first is None:
        raise ArgumentError(f"stats(): expected trees of arrays, some of {', '.join(given)}; all were left out")
    located = walk(given[first], first)
    listing = listed(located, select, per)
    given["before"] = before
    lists = {what: aligned(listing, tree, what, first) for what, tree in given.items() if tree is not None}
    lists = without_unknown(lists)
    refuse_gaps(listing, lists)
    _refuse_shares(listing, lists)
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(lists))
    matrices = (_measured if traced else measured)(lists, listing.groups)
    return StepStats(**matrices, listing=listing, columns=columns_of(lists, listing.groups))


def _refuse_shares(listing: Listing, lists: Mapping[str, Sequence[Any]]) -> None:
    """Where an array is not all of a tensor, or many tensors at once, and jax shows it."""
    there = [
        (f"{what}: {param.name}", array)
        for what, arrays in lists.items()
        for param, item in zip(listing.params, arrays, strict=True)
        for array in jax.tree.leaves(item)
    ]
    for name, array in there:
        if type(array).__name__ == "BatchTracer":
            raise ArgumentError(
                f"{name} of shape {tuple(array.shape)} is one of many that jax.vmap takes at once: take the stats "
                "outside of vmap, of the stacked tree (per={'*': 0} is one group for each), or of one member"
            )
    refuse_parts(there)


def refuse_gaps(listing: Listing, lists: Mapping[str, Sequence[Any]]) -> None:
    """Where a product is taken, both of its arrays must be there, and an update needs two different ones."""
    pairs = list(zip(*(jax.tree.leaves(lists.get(what, ())) for what in ("params", "before")), strict=False))
    if pairs and all(new is old for new, old in pairs):
        raise ArgumentError(
            f"before and params hold the same {len(pairs)} arrays, so nothing seems to change; take the old weights "
            "before the update, of an nnx module by nnx.clone(model)"
        )
    for what, other in (("before", "params"), ("updates", "grads")):
        if what in lists and other in lists:
            for param, array, beside in zip(listing.params, lists[what], lists[other], strict=True):
                if array is None and beside is not None:
                    raise ArgumentError(
                        f"{what} lacks {param.name}, which {other} has; give trees of the same structure"
                    )


def measured(lists: Mapping[str, Sequence[Any]], groups: Sequence[Grouped]) -> dict[str, Any]:
    """The matrices of aligned lists of arrays, dispatched outside of the user's functions.

    Raises: ArgumentError for complex weights, ValueError or RuntimeError of jax's where arrays do not lie together.
    """
    with outside():
        matrices: dict[str, Any] = _jitted(dict(lists), tuple(groups))
    return matrices


def _measured(lists: Mapping[str, Sequence[Any]], groups: Sequence[Grouped]) -> dict[str, Any]:
    """The matrices, None for a quantity that is not there; for use where jax traces."""
    return cast("dict[str, Any]", automatic(lambda lists: _matrices(lists, groups), dict(lists)))


_jitted = jax.jit(_measured, static_argnums=1)


def _matrices(lists: Mapping[str, Sequence[Any]], groups: Sequence[Grouped]) -> dict[str, Any]:
    for what, arrays in lists.items():
        for array in jax.tree.leaves(arrays):
            refuse_unreadable(array, f"{what}: an array")
    weights, grads, updates, before = (lists.get(what) for what in ("params", "grads", "updates", "before"))
    if weights is not None and updates is not None:
        with float64():
            updates = [_moved(weight, update) for weight, update in zip(weights, updates, strict=True)]
    weights, before = (None if arrays is None else [whole(x) for x in arrays] for arrays in (weights, before))
    with float64():
        if before is not None:
            both = _sums(groups, weights, before, step=True)
            return {
                "weight": both[:DOT],
                "update": both[DOT:],
                "grad": None if grads is None else _sums(groups, grads, before),
            }
        if weights is None or updates is None:
            alone = {"weight": weights, "update": updates, "grad": grads}
            return {name: None if arrays is None else _sums(groups, arrays) for name, arrays in alone.items()}
        update, grad = _sums(groups, updates, weights), None
        if grads is not None:
            grad = _sums(groups, grads, weights)
            grad = grad.at[DOT].add(-_sums(groups, grads, updates)[DOT])
        return {"weight": _sums(groups, weights), "update": update.at[DOT].add(-update[SQ]), "grad": grad}


def _moved(weight: Any, update: Any) -> Any:
    """What was added to a normalized weight, of what was added to its parts; any other update as it is."""
    if not is_normalized(update):
        return update
    now, change = (jax.tree.map(lambda x: x.astype("float64"), node) for node in (weight, update))
    before = Normalized(now.v - change.v, now.g - change.g, now.p)
    return whole(now) - whole(before)


def columns_of(lists: Mapping[str, Sequence[Any]], groups: Sequence[Grouped]) -> Columns:
    """Which columns of a listing `measured` gives, per quantity."""
    quantities = {"weight": "params", "grad": "grads", "update": "before" if "before" in lists else "updates"}
    return tuple((name, _columns(lists[what], groups)) for name, what in quantities.items() if what in lists)


def _columns(arrays: Sequence[Any], groups: Sequence[Grouped]) -> tuple[int, ...]:
    whole = [i for i, x in enumerate(arrays) if x is not None]
    return (*whole, *(i for each in groups if arrays[each.place] is not None for i in each.columns.tolist()))


def _sums(groups: Sequence[Grouped], arrays: Any, partners: Any = None, *, step: bool = False) -> Any:
    """The sums of the arrays that there are, whole and then by groups: see `columns_of`."""
    blocks = _blocks(arrays, groups)
    if partners is None:
        return traced_sums_of_rows(blocks)
    beside = [None if x is None else partner for x, partner in zip(arrays, partners, strict=True)]
    return traced_sums_of_rows(blocks, _blocks(beside, groups), step=step)


def _blocks(arrays: Sequence[Any], groups: Sequence[Grouped]) -> list[Any]:
    whole = [as_rows(x, ()) for x in arrays if x is not None]
    return whole + [as_rows(arrays[each.place], each.axes) for each in groups if arrays[each.place] is not None]
