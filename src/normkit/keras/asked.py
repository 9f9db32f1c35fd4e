"""What the verbs on an optimizer were asked for, checked before anything is changed."""

from __future__ import annotations

import math
from typing import Any

import keras

from normkit.asked import known
from normkit.decay import KINDS
from normkit.errors import ArgumentError, in_brief
from normkit.keras.inside import rate_now
from normkit.keras.ring_hooks import inner_of, leaves_of


def check_optimizer(verb: str, optimizer: Any) -> None:
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return
    advice = f"as in nk.{verb}(keras.optimizers.Adam(1e-3), ...)"
    if isinstance(optimizer, type):
        raise ArgumentError(f"optimizer={optimizer.__name__} is a class; give an instance, {advice}")
    if isinstance(optimizer, keras.layers.Layer):
        raise ArgumentError(
            f"optimizer={type(optimizer).__name__} is a model; give the optimizer first and the model as model=, "
            f"{advice}"
        )
    if isinstance(optimizer, str):
        raise ArgumentError(f"optimizer={optimizer!r} is a name; give the optimizer itself, {advice}")
    given = "None" if optimizer is None else f"a {type(optimizer).__module__}.{type(optimizer).__name__}"
    raise ArgumentError(f"optimizer={given}: expected a keras.optimizers.Optimizer, {advice}")


def number_of(value: Any) -> float:
    """A number of Python's, from a tensor of one entry as well."""
    return float(keras.ops.convert_to_numpy(value))


def checked_schedule(schedule: Any) -> Any:
    """The schedule, once it has given a factor for step 0."""
    if schedule is not None and not callable(schedule):
        raise ArgumentError(
            f"schedule={in_brief(schedule)}: expected a function from the step to a factor on weight_decay, or a "
            "keras.optimizers.schedules.LearningRateSchedule"
        )
    if schedule is None:
        return None
    try:
        first = number_of(schedule(keras.ops.convert_to_tensor(0, "int32")))
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"schedule={in_brief(schedule)} gives no number for step 0, a tensor ({error}); expected a function from "
            "the step to a factor on weight_decay"
        ) from error
    if not 0 <= first < math.inf:
        raise ArgumentError(
            f"schedule={in_brief(schedule)} gives {first:g} at step 0; expected a factor of at least 0 on weight_decay"
        )
    return schedule


def checked_rate(optimizer: Any, kind: str, given: Any) -> float | None:
    """lr_ref: as it was given, or the rate now; None for a kind that has no use for it.

    Raises: ArgumentError where it is 0 or not known.
    """
    if not KINDS[kind].needs_ref:
        return None
    rates = {rate_now(leaf) for leaf in leaves_of(inner_of(optimizer))}
    found = known(given if given is not None else next(iter(rates)) if len(rates) == 1 else None)
    if found is None or not 0 < found < math.inf:
        said = in_brief(given) if given is not None else f"the optimizer's rates are {in_brief(sorted(rates, key=str))}"
        raise ArgumentError(
            f"kind={kind!r} needs lr_ref, and {said}; give the rate to compare with, above 0 (a schedule that warms up "
            "begins at 0)"
        )
    return found
