"""What the verbs on an optimizer were asked for, checked before anything is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import keras

from normkit.constrain.limits import checked_length, checked_limits
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


def checked_number(name: str, value: Any, advice: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ArgumentError(f"{name}={in_brief(value)}: expected a finite number of at least 0, {advice}")
    return float(value)


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
    """lr_ref: as it was given, or the rate now.

    Raises: ArgumentError where it is 0 or not known, and for a kind that has no use for it.
    """
    if not KINDS[kind].needs_ref:
        if given is not None:
            kinds = " and ".join(repr(each.name) for each in KINDS.values() if each.needs_ref)
            raise ArgumentError(f"lr_ref={in_brief(given)} is of no use with kind={kind!r}; it belongs to {kinds}")
        return None
    rates = {rate_now(leaf) for leaf in leaves_of(inner_of(optimizer))}
    found = given if given is not None else next(iter(rates)) if len(rates) == 1 else None
    if isinstance(found, bool) or not isinstance(found, Real) or not 0 < float(found) < math.inf:
        said = in_brief(found) if given is not None else f"the optimizer's rates are {in_brief(sorted(rates, key=str))}"
        raise ArgumentError(
            f"kind={kind!r} needs lr_ref, and {said}; give the rate to compare with, above 0 (a schedule that warms up "
            "begins at 0)"
        )
    return float(found)


def checked_aim(kind: str, reference: Any, length: Any, per: Any) -> Any:
    """`length`, once it is known that the kind has one of the two, and uses it."""
    for name, value in (("reference", reference), ("length", length)):
        if value is not None and kind != "toward":
            raise ArgumentError(f"{name}={in_brief(value)} is of no use with kind={kind!r}; it belongs to 'toward'")
    if kind == "toward" and (reference is None) == (length is None):
        given = "neither" if reference is None else "both"
        raise ArgumentError(
            f"kind='toward' needs one of reference= and length=, and {given} was given; as in reference='initial'"
        )
    if reference is not None and reference != "initial" and not isinstance(reference, Mapping):
        raise ArgumentError(f"reference={in_brief(reference)}: expected 'initial' or a dict of arrays by name")
    if length is None and per != "tensor":
        raise ArgumentError(
            f"per={in_brief(per)}: only a length has groups, as in kind='toward', length=1.0, per='out'"
        )
    return length if length is None or length == "initial" else checked_number("length", length, "or 'initial'")


def checked_limit(name: str, value: Any) -> Any:
    if name == "unit_norm":
        if value is not True:
            raise ArgumentError(f"unit_norm={in_brief(value)}: expected True; for another length take hold=")
        return True
    if name == "min_max_norm":
        return checked_limits(value)
    if name == "hold" and isinstance(value, str):
        if value != "initial":
            raise ArgumentError(f"hold={value!r}: expected a length above 0, or 'initial'")
        return value
    return checked_length(value, name)
