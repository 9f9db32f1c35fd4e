"""The ring's slots on JAX: two variables of the optimizer's, handed on from step to step with its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from normkit.errors import StateError
from normkit.keras.effective import value_of
from normkit.keras.ring_hooks import Watched
from normkit.keras.ring_slots import ANY, EMPTY, planned
from normkit.ops.jax import traced_step_sums, traced_sums
from normkit.ops.jax_words import as_words, behind_barrier, from_words
from normkit.recording.packet import ROWS

if TYPE_CHECKING:
    from normkit.keras.ring_slots import Found


class RingSlots:
    """The plan [2][slots] int32, and the sums of a step as one row [sums x tensors][2] of 32-bit words.

    Two words are one float64, bit by bit: JAX without x64 keeps no float64 from one step to the next.
    """

    around = None
    apart = staticmethod(behind_barrier)

    def __init__(self, watched: Watched, number: int) -> None:
        self._watched, self._number = watched, number
        self._sizes = {name: ROWS[name] * watched.counts(name) for name in watched.what}
        size = sum(self._sizes.values())
        make = watched.optimizer.add_variable
        self._plan = make((2, number), dtype="int32", name="normkit_plan")
        self._sums = make((number, size, 2), dtype="uint32", name="normkit_sums")
        self.variables: Sequence[Any] = (self._plan, self._sums)
        self._old: list[Any] = []
        self._gradients: dict[Any, Any] = {}

    def want(self, steps: Sequence[int], *, newest: bool) -> None:
        _attached(self._plan)
        self._plan.assign(planned(steps, self._number, newest=newest))

    def take(self) -> Found:
        plan = np.array(_attached(self._plan))
        held = np.flatnonzero(plan[1] != EMPTY)
        if not held.size:
            return []
        rows = from_words(np.asarray(_attached(self._sums))[held])
        found = [(int(step), self._cut(row)) for step, row in zip(plan[1, held], rows, strict=True)]
        plan[1] = EMPTY
        self._plan.assign(plan)
        return found

    def before(self) -> None:
        self._old = [value_of(variable) for variable in self._watched.trained]
        self._batch = self._watched.optimizer._iterations.value + 1
        self._gradients = {}

    def gradients(self, gradients: Mapping[Any, Any]) -> None:
        self._gradients |= dict(zip(gradients, behind_barrier(list(gradients.values())), strict=True))

    def after(self) -> None:
        ops = keras.ops
        plan, kept = self._plan.value, self._sums.value
        step = ops.cast(self._batch // self._watched.batches, "int32")
        hits = ops.logical_or(plan[0] == step, plan[0] == ANY)
        hit = ops.logical_and(ops.any(hits), self._batch % self._watched.batches == 0)
        slot = ops.argmax(hits)
        found = self._watched.in_order(self._gradients)
        new = [value_of(variable) for variable in self._watched.trained]
        old, self._old, self._gradients = self._old, [], {}
        row = ops.cond(hit, lambda: self._measured(old, found, new), lambda: ops.zeros(kept.shape[1:], "uint32"))
        self._plan.assign(plan.at[1, slot].set(ops.where(hit, step, plan[1, slot])))
        self._sums.assign(kept.at[slot].set(ops.where(hit, row, kept[slot])))

    def _measured(self, old: list[Any], gradients: list[Any], new: list[Any]) -> Any:
        """The sums of a step as words; weights and updates are read together, and an update is float64."""
        matrices = {}
        if "update" in self._watched.what:
            matrices["weight"], matrices["update"] = traced_step_sums(new, old)
        elif "weight" in self._watched.what:
            matrices["weight"] = traced_sums(new)
        if "grad" in self._watched.what:
            matrices["grad"] = traced_sums(gradients, old)
        return as_words([matrices[name] for name in self._watched.what])

    def _cut(self, row: Any) -> dict[str, Any]:
        cuts = np.split(row, np.cumsum(list(self._sizes.values()))[:-1])
        return {name: cut.reshape(ROWS[name], -1).copy() for name, cut in zip(self._sizes, cuts, strict=True)}


def _attached(variable: Any) -> Any:
    """What a variable holds, which in mid-epoch is nothing until the callback's `self.model` is read."""
    try:
        return variable.value
    except TypeError:
        raise StateError(
            f"{variable.name} is with the training step now, not with the model: read self.model of the callback first"
        ) from None
