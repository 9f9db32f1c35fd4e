"""`record`: the variables, gradients and updates of a loop that calls `rec.step()` after each step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import tensorflow as tf

from normkit.errors import ArgumentError, ModelError, StateError
from normkit.ops import tensorflow as ops
from normkit.ops.announce import quietly
from normkit.recording.checks import plain_scalar
from normkit.recording.grouped import described_groups, grouped
from normkit.recording.packet import Packet, Piece
from normkit.recording.recorder import Recorder
from normkit.select import select as select_params
from normkit.tensorflow.gradients import Gradients
from normkit.tensorflow.late import Fetched
from normkit.tensorflow.walk import Located, is_keras, walk


class TensorFlowRecorder(Recorder):
    """A recording under way; made by `record`."""

    def step(self, grads: Any = None) -> None:
        """Say that a step was made; call it after the optimizer has applied the gradients, outside of a tf.function.

        grads   what the step used: a list in the order of the variables given (of a module or model: of its
                `trainable_variables`), the same lists and dicts that the variables were given in, a dict of their
                names, or (gradient, variable) pairs; None where there is none

        Raises: StateError inside a tf.function, ArgumentError for gradients that do not fit the variables.
        """
        if tf.inside_function():
            raise _as_it_is(
                StateError(
                    f"rec.step() number {self.steps + 1} stands inside a tf.function, where it runs once, when that is "
                    "traced; return the gradients from the function, and call rec.step(grads=grads) after it"
                )
            )
        if self._writer is None:
            return
        sampled = "grad" in self.what and self.schedule.samples(self.steps + 1)
        matched = self._gradients.matched(grads) if sampled else {}
        with self._guard(), self.schedule.clock():
            self.steps += 1
            weights = None
            if self.schedule.records(self.steps):
                weights = self._weights()
                self._emit(self._packet(self._step_pieces(weights, matched)))
            self._hold(weights)

    # -- start and end ---------------------------------------------------------------------------------------------

    def _start(self, model: Any, rule: Any) -> None:
        self._located: list[Located] = []
        self._old: list[Any] | None = None
        if self.path is None:
            return
        refuse_compiled(model)
        everything = walk(model)
        chosen = {
            param.name for param in select_params([e.param for e in everything], rule, default="trainable").chosen
        }
        self._located = [each for each in everything if each.param.name in chosen]
        params = [each.param for each in self._located]
        self._groups = grouped(params, self._terms.per)
        self._gradients = Gradients(model, everything, self._located)
        self._caches: dict[str, ops.Cache] = {}
        for each in self._located:
            _check_readable(each)
        with quietly() if self._terms.quiet else nullcontext():
            _warm_up(self._located)
        self._open(params, self._meta(), described_groups(params, self._groups))
        if not self._settle():
            self._record_weights()
        self.schedule.start()
        self._hold(None)

    def _detach(self) -> None:
        self._old = None

    def close(self, end: str = "finished") -> None:
        super().close(end)
        if self._writer is None:  # a closed recorder keeps no model alive
            self._located, self._old, self._inbox.newest = [], None, None
            self._gradients = Gradients(None, [], [])

    # -- measuring -------------------------------------------------------------------------------------------------

    def _weights(self) -> list[Any]:
        return [each.value() for each in self._located]

    def _hold(self, weights: list[Any] | None) -> None:
        """Keep what the next step's update is measured against; while it is held, steps write to other memory."""
        wanted = "update" in self.what and self.schedule.samples(self.steps + 1)
        self._old = (self._weights() if weights is None else weights) if wanted else None

    def _step_pieces(self, weights: list[Any], grads: Mapping[int, Any]) -> list[Piece]:
        pieces = self._gradient_pieces(grads) if grads else []
        if self._old is None:
            return pieces + self._pieces(("weight",), ops.sums, weights)
        return pieces + self._pieces(("weight", "update"), ops.step_sums, weights, self._old)

    def _gradient_pieces(self, grads: Mapping[int, Any]) -> list[Piece]:
        columns = [grads.get(i) for i in range(len(self._located))]
        if self._old is None:
            return self._pieces(("grad",), ops.sums, columns)
        return self._pieces(("grad",), ops.grad_sums, columns, self._old)

    def _pieces(self, quantities: tuple[str, ...], sums: Any, *lists: list[Any]) -> list[Piece]:
        """The sums of every tensor, and the same of each group of those that have groups."""
        label = ",".join(quantities)
        index = np.arange(len(self._located))
        pieces = [Piece(sums(*lists, cache=self._cache(label)), index, quantities)]
        if self._groups:
            rows = [[row for each in self._groups for row in _rows(tensors[each.place], each)] for tensors in lists]
            columns = np.concatenate([each.columns for each in self._groups])
            pieces.append(Piece(sums(*rows, cache=self._cache(f"{label} in groups")), columns, quantities))
        return pieces

    def _cache(self, label: str) -> ops.Cache:
        return self._caches.setdefault(label, ops.Cache())

    def _record_weights(self) -> None:
        """The weights now; what the newest record says of this same step besides is kept."""
        fresh = self._pieces(("weight",), ops.sums, self._weights())
        newest = self._inbox.newest
        again = newest is not None and newest.step == self.steps and newest.layout == self._layout
        packet = self._packet([*newest.pieces, *fresh] if again and newest is not None else fresh)
        if again and newest is not None:
            packet.scalars = dict(newest.scalars)
        self._emit(packet)

    def _present(self) -> Packet:
        return self._packet(self._pieces(("weight",), ops.sums, self._weights()))

    def _packet(self, pieces: list[Piece]) -> Packet:
        return Packet(self.steps, self._layout, self._columns, time.time(), pieces)

    def _scalar(self, name: str, value: Any) -> Any:
        if not tf.is_tensor(value):
            return plain_scalar(name, value)
        if tf.is_symbolic_tensor(value):
            raise ArgumentError(f"log({name}=...): a symbolic tensor has no value; return it from the tf.function")
        if not isinstance(value, tf.Tensor | tf.Variable) or value.shape.num_elements() != 1 or not _is_real(value):
            raise ArgumentError(f"log({name}=...): expected one number, got {_in_words(value)}")
        return Fetched(tf.reshape(value, (1, 1)))

    def _meta(self) -> dict[str, Any]:
        kinds = sorted(
            {each.value().device.rpartition("device:")[2].partition(":")[0] or "CPU" for each in self._located}
        )
        words = {"CPU": "cpu: compiled kernel, float64"}
        return {
            "framework": f"tensorflow {tf.__version__}",
            "optimizers": [],
            "untrained": [],
            "every": self.schedule.text(),
            "overhead": self.schedule.overhead,
            "path_of_sums": "; ".join(words.get(kind, f"{kind.lower()}: tensorflow, float64") for kind in kinds),
        }


def refuse_compiled(model: Any) -> None:
    """Raises: ModelError for a Keras 3 model that was compiled for `fit`, whose steps nobody would count here."""
    is_keras_3 = is_keras(model) and not any(cls.__module__.startswith("tf_keras") for cls in type(model).__mro__)
    if is_keras_3 and getattr(model, "compiled", False):
        raise ModelError(
            f"{type(model).__name__} is compiled for model.fit: record it by callbacks=[normkit.keras.record()]; for a "
            "loop of your own give record() model.variables"
        )


def _as_it_is(error: StateError) -> StateError:
    """The error, so that autograph leaves it alone, which would raise another one around it."""
    error.ag_pass_through = True  # type: ignore[attr-defined]  # the word that autograph asks for
    return error


def _is_real(tensor: Any) -> bool:
    """Does it hold numbers of the real line, or truth values?"""
    return bool(tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool)


def _in_words(value: Any) -> str:
    return f"{type(value).__name__} of {tf.as_dtype(value.dtype).name}, shape {value.shape}"


def _check_readable(located: Located) -> None:
    try:
        located.value()
    except ArgumentError as error:
        raise ModelError(f"{located.param.name}: {error}") from None


def _warm_up(located: Sequence[Located]) -> None:
    """Compile the kernels for these dtypes now, so that the first steps don't."""
    for dtype in {each.param.dtype for each in located}:
        tensors = [tf.zeros((2,), dtype)]
        ops.sums(tensors).wait()
        ops.grad_sums(tensors, tensors).wait()
        ops.step_sums(tensors, tensors).wait()


def _rows(tensor: Any, groups: Any) -> list[Any]:
    """The groups of `tensor`, each flat."""
    return [None] * groups.count if tensor is None else tf.unstack(ops.as_rows(tensor, groups.axes), groups.count)
