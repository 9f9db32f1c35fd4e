"""Which learning rate each call of an optimizer has used, also where callbacks set another one at every batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import keras

from normkit.keras.inside import given_rate, has_its_state, rounds_of
from normkit.keras.optimizers import optimizers_of
from normkit.keras.ring_hooks import inner_of, leaves_of

MANY = 256  # notes that are kept as they are, before they are fetched


class Rates:
    """The learning rates of a model's optimizers, call by call.

    A rate that is set is noted together with the number of calls made before, and neither is fetched: the next call is
    the first to use it. So each call's rate is known, whoever set it, in a callback before ours or behind it.
    """

    def __init__(self, model: Any) -> None:
        counted = inner_of(getattr(model, "optimizer", None))
        parts = [] if counted is None else leaves_of(counted)
        self._all: Sequence[Rate] = [
            Rate(model, each, counted if each in parts else None) for each in optimizers_of(model)
        ]

    def at(self, round_: int) -> dict[str, Any]:
        """Those of call number `round_` (from 1) of the model's optimizer: `lr`, another optimizer's `optimizer1.lr`.

        Not fetched: they may still be on a device. Calls are asked for in their order.
        """
        found = {f"optimizer{number}.lr" if number else "lr": rate.at(round_) for number, rate in enumerate(self._all)}
        return {name: rate for name, rate in found.items() if rate is not None}

    def detach(self) -> None:
        """Note nothing more."""
        for rate in self._all:
            rate.detach()


class Rate:
    """The learning rate of one optimizer; `counted` is the one whose calls are meant, None for itself as it is now."""

    def __init__(self, model: Any, optimizer: Any, counted: Any) -> None:
        self._model: Any = model
        self._given = given_rate(optimizer)
        self._counter = rounds_of(optimizer if counted is None else counted)
        self._is_counted = counted is not None
        self._notes: list[tuple[Any, Any]] = []  # calls made before, and the rate from then on
        if isinstance(self._given, keras.Variable):
            self._note()
            _listeners(self._given).append(self._note)

    def at(self, round_: int) -> Any:
        """The rate of that call; None where it is not known, as that of a function."""
        made = round_ - 1 if self._is_counted else _number(self._counter.value) - 1
        if isinstance(self._given, keras.optimizers.schedules.LearningRateSchedule):
            return self._given(max(made, 0))
        if len(self._notes) > 1:
            newest = max((i for i, (calls, _) in enumerate(self._notes) if _number(calls) <= made), default=0)
            self._notes = self._notes[newest:]
        return self._notes[0][1] if self._notes else None

    def detach(self) -> None:
        """Note nothing more, and keep no model alive."""
        self._model = None
        if isinstance(self._given, keras.Variable):
            _forget(self._given, self._note)

    def _note(self) -> None:
        if not has_its_state(self._model):
            return  # on JAX it gets back the one that it had, or one that is forgotten
        with contextlib.suppress(Exception):  # inside of a step that is being compiled there is no number
            self._notes.append((_copied(self._counter), _copied(self._given)))
        if len(self._notes) > MANY:
            self._notes = [(_number(calls), _number(rate)) for calls, rate in self._notes]


def _copied(variable: Any) -> Any:
    return keras.ops.copy(variable.value)  # a training step may take what the variable holds for itself


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) else keras.ops.convert_to_numpy(value).item()


def _listeners(variable: Any) -> list[Callable[[], None]]:
    """Who is told when the variable is set; `assign` is shadowed on the instance, as the ring does it."""
    known: list[Callable[[], None]] | None = getattr(vars(variable).get("assign"), "listeners", None)
    if known is not None:
        return known
    plain = variable.assign
    listeners: list[Callable[[], None]] = []

    @wraps(plain)
    def assign(value: Any) -> Any:
        result = plain(value)
        for listener in listeners:
            listener()
        return result

    assign.listeners = listeners  # type: ignore[attr-defined]
    vars(variable)["assign"] = assign
    return listeners


def _forget(variable: Any, listener: Callable[[], None]) -> None:
    listeners = getattr(vars(variable).get("assign"), "listeners", [])
    if listener in listeners:
        listeners.remove(listener)
        if not listeners:
            del vars(variable)["assign"]
