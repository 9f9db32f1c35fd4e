"""Which weights of a tree are penalized, decayed or constrained, and which array of each a step changes.

Of a weight in two parts, w = g v / |v|, a step changes g: its groups have the lengths |g|, and v is a direction alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per, kept_axes
from normkit.jax.parts import content, is_normalized
from normkit.jax.walk import Located, walk
from normkit.select import Explanation, Selection
from normkit.select import select as select_params
from normkit.select.selection import Row
from normkit.types import Param

Path = tuple[Any, ...]  # of keys, as jax gives them


@dataclass(frozen=True)
class Target:
    """A weight that is taken, and its array; of one in two parts the node of both."""

    param: Param
    array: Any

    @property
    def in_parts(self) -> bool:
        """Is it a weight in two parts?"""
        return is_normalized(self.array)

    @property
    def changed(self) -> Any:
        """The array that a step changes."""
        return content(self.array.g) if self.in_parts else self.array

    @property
    def changed_name(self) -> str:
        """What that array is called."""
        return f"{self.param.name}.g" if self.in_parts else self.param.name

    def kept(self, per: Per) -> tuple[int, ...]:
        """The axes kept, in the weight. Raises: ArgumentError as `kept_axes`."""
        return kept_axes(per, self.param.shape, self.param)

    def kept_in_g(self, per: Per, what: str) -> tuple[int, ...]:
        """The axes kept, where the groups of the weight are groups of what is changed, of the same lengths.

        Raises: ModelError where those of a weight in two parts are not.
        """
        kept = self.kept(per)
        if not self.in_parts:
            return kept
        own = {axis for axis, size in enumerate(self.changed.shape) if size == self.param.shape[axis]}
        if set(kept) <= own and self.array.p == 2:
            return kept
        name, lengths = self.param.name, sorted(axis for axis in own if self.param.shape[axis] > 1)
        advice = f"take per={tuple(lengths) or 'tensor'!r}" if self.array.p == 2 else "make it with p=2"
        raise ModelError(
            f"{what} with per={per!r}: {name} of shape {self.param.shape} is in two parts, and its g holds the lengths "
            f"(p={self.array.p}) of axes {tuple(lengths)}; {advice}, or leave it out with select='!{name}'"
        )


def by_path(params: Any, rule: Any, verb: str) -> dict[Path, Target]:
    """The weights of `params` that a rule takes, by the path of the array that a step changes. None where it has no
    arrays at all, as the tree that stands for any other in `optax.tree.map_params`.

    Raises: as `taken`.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    if not leaves:
        return {}
    marks = [_mark(leaf) for _, leaf in leaves]  # an array may stand in the tree twice; a mark does not
    path_of = {id(mark): path for mark, (path, _) in zip(marks, leaves, strict=True)}
    return {path_of[id(target.changed)]: target for target in taken(structure.unflatten(marks), rule, verb)}


def taken(params: Any, rule: Any, verb: str) -> list[Target]:
    """The weights of `params` that a rule takes; None takes kernels, and an array given alone.

    Raises: ArgumentError for what is no tree of arrays, a rule that reaches nothing, and complex weights.
    """
    if rule is None and isinstance(params, jax.Array | np.ndarray):
        rule = "all"
    selection, located = _selected(params, rule)
    found = _reached(selection, located)
    if not found:
        what = "a kernel" if rule is None else "trained and chosen"
        raise ArgumentError(
            f"none of the {len(located)} arrays given is {what}; name those to {verb} by select=, as nk.explain "
            "names them"
        )
    for target in found:
        if target.param.dtype.startswith("complex"):
            name = target.param.name
            raise ArgumentError(
                f"{name} is of {target.param.dtype}; expected real numbers: leave it out with select='!{name}'"
            )
    return found


def explained(params: Any, rule: Any, said: Callable[[Target], str]) -> Explanation:
    """The table of all arrays of `params`; of those that are taken `said` tells what happens to them."""
    selection, located = _selected(params, rule)
    targets = {target.param.name: target for target in _reached(selection, located)}
    rows = selection.explain().rows
    return Explanation(tuple(map(partial(_told, targets, said), selection.params, rows)))


def _told(targets: dict[str, Target], said: Callable[[Target], str], param: Param, row: Row) -> Row:
    if (target := targets.get(param.name)) is not None:
        through = f" through {target.changed_name}" if target.in_parts else ""
        return replace(row, told=f"{said(target)}{through}")
    if param.part in ("g", "v") and _weight_of(param) in targets:
        return replace(row, chosen=False, why=f"part {param.part} of {_weight_of(param)}")
    return replace(row, chosen=False, why="not trained") if row.chosen else row


def _selected(params: Any, rule: Any) -> tuple[Selection, list[Located]]:
    located = walk(params)
    return select_params([item.param for item in located], rule, default="kernel"), located


def _reached(selection: Selection, located: Sequence[Located]) -> list[Target]:
    """Those chosen that are trained; a part of a weight only where the weight itself is not."""
    names = {param.name for param in selection.chosen if param.trainable}
    items = [item for item in located if item.param.name in names]
    return [
        Target(item.param, item.array)
        for item in items
        if item.param.part not in ("g", "v") or _weight_of(item.param) not in names
    ]


def _weight_of(part: Param) -> str:
    return part.name.rpartition(".")[0]


def _mark(leaf: Any) -> Any:
    """Shape and dtype in the place of an array."""
    array = isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if array else leaf
