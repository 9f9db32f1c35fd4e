"""Numbers and schedules that are given to a verb, checked as far as they can be seen before a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from normkit.asked import known, number
from normkit.errors import ArgumentError, in_brief

INJECTED = "where optax.inject_hyperparams makes it one, name the argument in its static_args="


def coefficient(value: Any, said: str, advice: str = "") -> float:
    """A finite number of at least 0 as Python's.

    Raises: ArgumentError for what is none, or is not known before the step.
    """
    return number(value, said, advice=f"; {advice}" if advice else injected(value))


def injected(*values: Any) -> str:
    """What to do about numbers that jax traces, if one of them is."""
    return f"; {INJECTED}" if any(map(is_traced, values)) else ""


def is_traced(value: Any) -> bool:
    """Is it a single number that jax traces, as `optax.inject_hyperparams` gives?"""
    return isinstance(value, jax.core.Tracer) and not value.shape


def refuse_traced(given: Mapping[str, Any]) -> None:
    """Raises: ArgumentError for a number, or one of several, that jax traces."""
    for name, value in given.items():
        for each in value if isinstance(value, tuple | list) else [value]:
            if is_traced(each):
                raise ArgumentError(
                    f"{name}={_shown(each)}: expected a number that is known before the step; {INJECTED}"
                )


@dataclass(frozen=True)
class Rate:
    """A number, or what gives one for each step, counted from 0."""

    given: Any

    def at(self, step: Any) -> Any:
        """Its value in a step."""
        return self.given(step) if callable(self.given) else self.given

    @property
    def first(self) -> float | None:
        """Its value in the first step; None where jax traces it."""
        return known(self.at(0))


def rate(given: Any, said: str, advice: str) -> Rate:
    """Raises: ArgumentError for what is neither a number of at least 0 nor a schedule of such."""
    found = Rate(given)
    if not callable(given):
        if not is_traced(given) and (given is None or known(given) is None or not 0 <= float(given) < math.inf):
            raise ArgumentError(
                f"{said}={_shown(given)}: expected a finite number of at least 0, or a schedule (step -> number); "
                f"{advice}"
            )
        return found
    value = _asked(given, said)
    if not is_traced(value) and ((number := known(value)) is None or not 0 <= number < math.inf):
        raise ArgumentError(
            f"{said}({0}) gave {_shown(value)}: expected a schedule, step -> a finite number of at least 0; {advice}"
        )
    return found


def _asked(schedule: Callable[[int], Any], said: str) -> Any:
    try:
        return schedule(0)
    except TypeError as error:
        raise ArgumentError(
            f"{said}={in_brief(schedule)} could not be asked for step 0 ({error}); expected a schedule, step -> number"
        ) from None


def _shown(value: Any) -> str:
    return f"<{value.dtype} that jax traces>" if is_traced(value) else in_brief(value)
