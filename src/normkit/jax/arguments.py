"""What a recorder is called with, checked."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from pathlib import Path
from typing import Any

import jax
import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.jax.traced import StepStats


def check_path(to: Any) -> None:
    """Raises: ArgumentError where something else stands in the place of the file."""
    if to is not None and not isinstance(to, str | Path):
        given = f"a {type(to).__name__}"
        raise ArgumentError(f"record({given}): expected the path of the file first; give the weights as params=")


def sorted_call(step: Any, stats: Any) -> tuple[Any, StepStats | None]:
    """The step and the stats of `recorder(stats)`, `recorder(step, stats)` or the two the other way round."""
    if isinstance(step, StepStats):
        step, stats = stats, step
    if stats is not None and not isinstance(stats, StepStats):
        raise ArgumentError(
            f"recorder(..., {_given(stats)}): expected what nk.stats(...) returned; give trees by name: "
            "recorder(params=tree)"
        )
    return step, stats


def step_number(step: Any, last: int, count: int, *, weights_only: bool) -> int:
    """The number of the step, which follows `last`.

    Raises: ArgumentError for what is no whole number on the host, for a step that does not follow, and for step 0 with
    gradients: it is what was before the first step.
    """
    if step is None:
        return last + count
    if isinstance(step, jax.Array):
        raise ArgumentError(
            f"recorder(step=<{step.dtype} array on a device>): reading it would wait for the device; count in a Python "
            "int, or leave the step out"
        )
    try:
        number = -1 if isinstance(step, bool | np.bool_) else index(step)
    except TypeError:
        number = -1
    if number < 0:
        raise ArgumentError(f"recorder(step={_given(step)}): expected a whole number of steps made, as a Python int")
    if number == 0 and not weights_only:
        raise ArgumentError(
            f"recorder(step={number}): step 0 is before the first one, and these are numbers of a step; count from 1 "
            "(step + 1), or leave the step out"
        )
    if number < last or (number == last and number > 0):
        raise ArgumentError(f"recorder(step={number}): step {last} was given before; steps grow from call to call")
    return number


def refuse_stats(stats: StepStats | None, trees: Mapping[str, Any]) -> int:
    """How many steps these are the stats of. Raises: ArgumentError where they cannot be taken as they are."""
    if stats is None:
        return 1
    if trees:
        raise ArgumentError(f"recorder(stats, {', '.join(trees)}=...): give the stats or the trees, not both")
    ((_, matrix, _), *_) = stats.matrices()
    if isinstance(matrix, jax.core.Tracer):
        raise ArgumentError(
            f"recorder(stats of {len(stats.listing.params)} tensors) was called while jax traces a function: return "
            "the stats from the jitted step, and call the recorder outside"
        )
    if matrix.ndim > 3:
        raise ArgumentError(f"recorder(stats): these stats have {matrix.ndim - 2} axes of steps; expected at most one")
    if matrix.ndim == 3 and len(matrix.devices()) > 1 and not matrix.is_fully_replicated:
        raise ArgumentError(
            f"recorder(stats): these stats have an axis of {matrix.shape[0]} devices (pmap); give those of one: "
            "jax.tree.map(lambda x: x[0], stats)"
        )
    return 1 if matrix.ndim == 2 else int(matrix.shape[0])


def refuse_leap(step: int, last: int, count: int, *, told: bool) -> None:
    """Stacked stats are of all the steps since `last`, and the caller says so: an ensemble's look the same.

    Raises: ArgumentError where the step is left out, or is another one.
    """
    if told and step == last + count:
        return
    given = f"step={step}, stats of {count} steps" if told else f"stats of {count} steps"
    raise ArgumentError(
        f"recorder({given}): stats stacked by lax.scan are of the steps up to the one given: expected "
        f"step={last + count}, as step {last} was before; of an ensemble (vmap) give one member: "
        "jax.tree.map(lambda x: x[0], stats)"
    )


def stacked(stats: StepStats | None) -> bool:
    """Are these the stats of several steps, as `lax.scan` stacks them?"""
    return stats is not None and stats.matrices()[0][1].ndim == 3


def _given(value: Any) -> str:
    return type(value).__name__ if isinstance(value, Mapping | jax.Array) else in_brief(value)
