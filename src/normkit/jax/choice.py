"""Which weights are to be normalized, and along which axes: everything that could be refused is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from normkit.errors import ArgumentError
from normkit.groups import Per, kept_axes
from normkit.jax.walk import Located
from normkit.ops.jax import refuse_absent
from normkit.select import select as select_params
from normkit.types import Param

Choice = list[tuple[Located, tuple[int, ...]]]


def chosen(located: Sequence[Located], rule: Any, per: Per) -> Choice:
    """The weights that a rule takes, each with its kept axes.

    Raises: ArgumentError for a rule that reaches none, and for a weight that cannot be normalized.
    """
    located = [item for item in located if item.param.part not in ("g", "v")]
    params = [item.param for item in located]
    taken = {param.name for param in select_params(params, rule, default="kernel").chosen}
    if not taken:
        raise ArgumentError(f"none of the {len(params)} arrays given is a kernel; name those to normalize by select=")
    found = [item for item in located if item.param.name in taken]
    for item in found:
        _refuse(item.param)
        if (
            isinstance(item.array, jax.Array)
            and not isinstance(item.array, jax.core.Tracer)
            and item.array.is_deleted()
        ):
            refuse_absent(item.array, item.param.name)
    return [(item, tuple(sorted(kept_axes(per, item.param.shape, item.param)))) for item in found]


def _refuse(param: Param) -> None:
    if param.part != "whole":
        raise ArgumentError(
            f"{param.name} of shape {param.shape} is already normalized; leave it out with select='!{param.name}', or "
            "end it by nk.fold"
        )
    if param.aliases:
        raise ArgumentError(
            f"{param.name} is tied to {param.aliases[0]}: both are one variable, and would come apart; leave it out "
            f"with select='!{param.name}'"
        )
    if not param.trainable:
        why = f"is of {param.dtype}" if param.rule.startswith(param.dtype) else f"is not trained ({param.rule})"
        raise ArgumentError(f"{param.name} {why}; expected a weight that is trained: leave it out with select=")
    if param.dtype.startswith("complex"):
        raise ArgumentError(f"{param.name} is of {param.dtype}; weight normalization here is of real numbers")
