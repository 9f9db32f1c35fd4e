"""What a parameter is: its role and axes, and what its name or its shape says where no layer does.

The doors have the tables, layer class -> parameter -> role and axes; this is what all of them share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from normkit.types import Role

Axes = tuple[int, ...] | None
Row = tuple[str, Role, Axes, Axes]  # pattern of the parameter's own name, role, axes of outputs, axes of inputs
EVERY: tuple[int, ...] = ()  # stands in a table whose axes count from the end for "all axes of the weight"
Named = tuple[str, Role, bool]  # pattern of a name, role, and whether it counts for vectors only


@dataclass(frozen=True)
class Kind:
    """What a parameter is, and which rule said so."""

    role: Role
    rule: str
    out_axes: Axes = None
    in_axes: Axes = None


def role_by_name(names: Sequence[Named], word: str, shape: tuple[int, ...]) -> Role | None:
    """The role of the first row that `word` matches whole; a single number is neither scale nor bias."""
    vector = is_vector(shape)
    role = next((role for text, role, only in names if re.fullmatch(text, word) and (vector or not only)), None)
    return "other" if role in ("scale", "bias") and not shape else role


def by_shape(leaf: str, shape: tuple[int, ...]) -> Kind:
    """What the shape alone says, and the name `weight`."""
    vector = is_vector(shape)
    if len(shape) >= 2 and (not vector or (len(shape) == 2 and "weight" in leaf)):  # [1, n] may be a layer of one unit
        return Kind("kernel", f"shape: {len(shape)} axes")
    if shape and leaf == "weight":
        return Kind("scale", "shape: a vector named weight", tuple(range(len(shape))))
    return Kind("other", "shape: a vector" if shape else "shape: one number")


def is_vector(shape: tuple[int, ...]) -> bool:
    """Has it more than one entry along one axis at most?"""
    return sum(size != 1 for size in shape) <= 1


def placed(axes: Axes, rank: int) -> Axes:
    """Axes of a table counted from 0; none where the weight has too few of them."""
    if axes == EVERY:
        return tuple(range(rank))
    if axes is None or any(not -rank <= axis < rank for axis in axes):
        return None
    return tuple(axis % rank for axis in axes)
