"""The ring's slots on TensorFlow: variables of our own, written inside the step.

Where XLA compiles the step, the sums are taken around what it compiles: the gradients are handed out of it, and the
compiled kernel reads them and the weights. Inside, XLA takes several times as long and compiles for many seconds more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from normkit.keras.effective import Effective, parts_of
from normkit.keras.ring_hooks import Watched
from normkit.keras.ring_slots import ANY, EMPTY, planned
from normkit.ops.tensorflow import read, traced_sums
from normkit.ops.tensorflow_call import (
    compiled_by_xla,
    graph_now,
    is_slices,
    kernel_grad_sums,
    kernel_step_sums,
    kernel_sums,
)
from normkit.ops.tensorflow_traced import traced_steps
from normkit.recording.packet import ROWS

if TYPE_CHECKING:
    from normkit.keras.ring_slots import Found

Step = Callable[[Any], Any]


@dataclass
class Lift:
    """What is handed out of a step that XLA compiles, while it is traced."""

    graph: Any
    applied: int = 0
    below: bool = False  # did the optimizer work in a branch, which hands out nothing?

    def note(self) -> None:
        self.below |= graph_now() is not self.graph


class _NotLiftedError(Exception):
    """The step does not make one update, outside of any branch."""


class RingSlots:
    """One variable [slots][sums][tensors] per quantity, float64: exact.

    A compiled function finds them by itself, so the optimizer is not told of them.
    """

    variables: Sequence[Any] = ()
    apart = None

    def __init__(self, watched: Watched, number: int) -> None:
        self._watched, self._number = watched, number
        self._plan = _variable((2, number), "int64", "plan")
        self._sums = {
            name: _variable((number, ROWS[name], watched.counts(name)), "float64", name) for name in watched.what
        }
        self._old: list[Any] = []
        self._gradients: dict[Any, Any] = {}
        self._lift: Lift | None = None
        self._in_xla = False
        self._on_cpu = all("GPU" not in part.value.device for each in watched.live for part in parts_of(each))
        trained = {id(variable): i for i, variable in enumerate(watched.trained)}
        self._others = [variable for variable in watched.live if id(variable) not in trained]
        beyond = iter(range(len(trained), len(watched.live)))
        self._order = [trained[id(v)] if id(v) in trained else next(beyond) for v in watched.live]

    def want(self, steps: Sequence[int], *, newest: bool) -> None:
        self._plan.assign(planned(steps, self._number, newest=newest))

    def take(self) -> Found:
        plan = np.array(self._plan.numpy())
        held = np.flatnonzero(plan[1] != EMPTY)
        if not held.size:
            return []
        matrices = {name: variable.numpy() for name, variable in self._sums.items()}
        found: Found = [(int(plan[1, i]), {name: m[i].copy() for name, m in matrices.items()}) for i in held]
        plan[1] = EMPTY
        self._plan.assign(plan)
        return found

    # -- the moments of a step -----------------------------------------------------------------------------------------

    def before(self) -> None:
        self._gradients = {}
        if self._lift is None:
            self._begin()
        else:
            self._lift.applied += 1
            self._lift.note()

    def gradients(self, gradients: Mapping[Any, Any]) -> None:
        self._gradients |= gradients
        if self._lift is not None:
            self._lift.note()
        elif self._watched.batches > 1:  # inside a branch of the step, which they do not leave
            self._write_gradients(self._watched.in_order(self._gradients))

    def after(self) -> None:
        if self._lift is not None:
            return
        if self._watched.batches == 1:
            self._write_gradients(self._watched.in_order(self._gradients))
        self._gradients = {}
        self._write_weights()

    def around(self, step: Step) -> Step:
        """The training step, compiled by XLA, and what is to be measured around it.

        It is compiled twice, since gradients that are handed out take memory: an unrecorded step is as without us.
        Where that cannot be, as under gradient accumulation and dynamic loss scaling, XLA compiles it all.
        """

        def lifted(data: Any) -> Any:
            self._lift = lift = Lift(graph_now())
            try:
                outputs = step(data)
            finally:
                self._lift = None
            if lift.applied != 1 or lift.below:
                raise _NotLiftedError
            return outputs, self._watched.in_order(self._gradients) if "grad" in self._sums else []

        def silent(data: Any) -> Any:
            return lifted(data)[0]

        def whole(data: Any) -> Any:
            self._in_xla = True
            return step(data)

        compiled, compiled_silent, compiled_whole = map(compiled_by_xla, (lifted, silent, whole))

        def recorded(data: Any) -> Any:
            outputs, gradients = compiled(data)
            self._write_gradients(gradients)
            self._write_weights()
            return outputs

        def measured(data: Any) -> Any:
            if self._watched.batches > 1:
                return compiled_whole(data)
            self._begin()
            try:
                return keras.ops.cond(self._hit, lambda: recorded(data), lambda: compiled_silent(data))
            except _NotLiftedError:
                return compiled_whole(data)

        return measured

    # -- measuring -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Which step this is, where it belongs, and the weights before it."""
        ops, watched = keras.ops, self._watched
        batch = ops.cast(read(watched.optimizer._iterations), "int64") + 1
        self._step = batch // watched.batches
        wanted, _ = ops.unstack(read(self._plan), 2)
        hit = ops.logical_or(wanted == self._step, wanted == ANY)
        self._slot = ops.cast(ops.argmax(ops.cast(hit, "int32")), "int64")
        self._hit = ops.logical_and(ops.any(hit), batch % watched.batches == 0)
        trained = watched.trained if "grad" in self._sums or "update" in self._sums else []
        if self._in_xla:
            self._old = [_read(variable) for variable in trained]
        elif trained:  # held only where they are needed, since what is held must be copied before it is changed
            nothing = [ops.zeros((0,), variable.dtype) for variable in trained]
            self._old = ops.cond(self._hit, lambda: [_read(variable) for variable in trained], lambda: nothing)

    def _write_gradients(self, found: Sequence[Any]) -> None:
        if "grad" in self._sums:
            old = self._old
            keras.ops.cond(self._hit, lambda: self._put("grad", self._sums_of_gradients(found, old)), lambda: None)

    def _write_weights(self) -> None:
        old, self._old = self._old, []

        def write() -> None:
            if "update" in self._sums:
                both = self._sums_of_step([_read(variable) for variable in self._watched.trained], old)
                self._put("update", both[6:])
                if "weight" in self._sums:
                    others = self._sums_of([_read(variable) for variable in self._others])
                    self._put("weight", keras.ops.take(keras.ops.concatenate([both[:6], others], 1), self._order, 1))
            elif "weight" in self._sums:
                self._put("weight", self._sums_of([_read(variable) for variable in self._watched.live]))
            place = keras.ops.stack([keras.ops.ones_like(self._slot), self._slot])
            self._plan.value.scatter_nd_update([place], [self._step])

        keras.ops.cond(self._hit, write, lambda: None)

    def _sums_of(self, arrays: Sequence[Any]) -> Any:
        return kernel_sums(arrays) if self._by_kernel else traced_sums(arrays)

    def _sums_of_step(self, new: Sequence[Any], old: Sequence[Any]) -> Any:
        return kernel_step_sums(new, old) if self._by_kernel else traced_steps(new, old)

    def _sums_of_gradients(self, found: Sequence[Any], old: Sequence[Any]) -> Any:
        """Those of an embedding's gradient, which are few, are TensorFlow's own to add up."""
        dense = [i for i, x in enumerate(found) if x is not None and not is_slices(x)]
        if not self._by_kernel or not dense:
            return traced_sums(found, old)
        others = [i for i in range(len(found)) if i not in dense]
        matrix = kernel_grad_sums([found[i] for i in dense], [old[i] for i in dense])
        beside = traced_sums([found[i] for i in others], [old[i] for i in others])
        return keras.ops.take(keras.ops.concatenate([matrix, beside], 1), np.argsort([*dense, *others]), 1)

    @property
    def _by_kernel(self) -> bool:
        return self._on_cpu and not self._in_xla

    def _put(self, name: str, matrix: Any) -> None:
        self._sums[name].value.scatter_nd_update([[self._slot]], [matrix])


def _read(variable: Any) -> Any:
    return variable.worked_out() if isinstance(variable, Effective) else read(variable)


def _variable(shape: tuple[int, ...], dtype: str, name: str) -> Any:
    return keras.Variable("zeros", shape=shape, dtype=dtype, trainable=False, name=f"normkit_{name}")
