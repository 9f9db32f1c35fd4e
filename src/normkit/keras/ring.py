"""A ring of sums beside the optimizer: weight, gradient and update taken inside the training step, fetched later.

Gradients never reach a Keras callback, and under `steps_per_execution=4` neither do three of four weights. So the sums
are taken where they are, in the optimizer: `apply` is wrapped (it ends after the constraints, so an update is the final
weight minus the one before, decay included) and the backend's update step within it (its gradients are unscaled,
accumulated and clipped: as the optimizer uses them). An update that a loss scaler skips never gets there.

On TensorFlow and JAX the sums are part of the compiled step and lie in variables until `take`; on JAX these are
variables of the optimizer's, the only state that a step hands on, and are left out of whatever is saved. PyTorch runs
step by step: there they are numbers on their way in a list. Everything is right to 1e-12: differences and sums are
float64, and of an embedding's gradient on TensorFlow the rows of equal tokens are added first, in float64 too.

A normalized weight is worked out in the step, before and after its g and v change; it has no gradient of its own.

Measuring weights and updates changes no weight by a bit. On JAX nor does measuring gradients, which are read behind a
barrier, and clipped anew for it. On TensorFlow it may: what is read once more is fused otherwise, by its graph's own
optimizer as by XLA, and a gradient may be rounded otherwise on its way into the weights (1e-7 of them at a step; seen
with SGD without momentum, and with Adam and AdamW under jit_compile=True).

Under gradient accumulation an update is what the batch that updates does: Keras applies constraints after every batch,
and what they change before the first update belongs to none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from normkit.errors import ArgumentError, StateError
from normkit.keras.effective import parts_of, settled
from normkit.keras.ring_hooks import Hooks, Watched, inner_of, refuse_unusable, traced_anew
from normkit.keras.ring_slots import Slots, slots_of_backend
from normkit.ops import ops_of
from normkit.recording.packet import ROWS
from normkit.types import QUANTITIES

if TYPE_CHECKING:
    from normkit.types import Matrix, Param

CAP = 64 * 2**20  # bytes: what a ring may take of the memory of the device


class Located(Protocol):
    """A tensor of the model: what is known of it, and the Keras variable that holds it."""

    @property
    def param(self) -> Param: ...
    @property
    def variable(self) -> Any: ...


class Ring:
    """The sums of `located` at up to `depth` steps, taken inside the training step of a compiled `model`.

    `what` is some of "weight", "grad" and "update"; a step is an update of the weights, as `optimizer.iterations`
    counts them (under gradient accumulation: every so many batches). Until `want` says otherwise the first `depth`
    steps after `attach`, and after each `take`, are recorded.

    Call everything where the state is attached to the model (on JAX: after `self.model` of the callback was read).

    Raises: ArgumentError unless `what` names quantities and `depth` is from 1 to `Ring.most(...)`;
    ModelError, in a sentence, for an optimizer that cannot be watched.
    """

    def __init__(self, model: Any, located: Sequence[Located], what: Sequence[str], depth: int) -> None:
        unknown = [name for name in what if name not in QUANTITIES]
        if unknown or not what:
            raise ArgumentError(f"what={tuple(what)}: expected some of {', '.join(QUANTITIES)}")
        if not 1 <= depth <= self.most(len(located), what):
            raise ArgumentError(
                f"depth={depth}: expected 1 to {self.most(len(located), what)} steps of {len(located)} tensors, "
                f"which take {CAP // 2**20} MB"
            )
        self._model, self._located, self._depth = model, list(located), depth
        self._what = tuple(name for name in QUANTITIES if name in what)
        self._slots: Slots | None = None
        self._default = True
        self._failure = ""
        self._seen = False
        self._displaced = False
        self._apart: Any = None

    @staticmethod
    def most(tensors: int, what: Sequence[str]) -> int:
        """The greatest depth for so many tensors: as many steps as lie in 64 MB, at least one.

        >>> Ring.most(48, ("weight", "grad", "update"))
        8737
        """
        return max(1, CAP // (8 * max(1, tensors) * sum(ROWS[name] for name in what)) - 1)

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self.after(0)

    def after(self, batches: int) -> int:
        """Updates that will have been made after so many more batches, if a loss scaler skips none of them."""
        return (int(self._counted._iterations.value) + batches) // (self._counted.gradient_accumulation_steps or 1)

    def attach(self) -> None:
        """Begin. The training function is made anew, so that one compiled by an earlier `fit` takes part.

        A ring that an interrupted `fit` has left on the optimizer is taken off; its `take` says so from then on.
        """
        model, optimizer = self._model, self._model.optimizer
        if isinstance(optimizer, keras.optimizers.Optimizer) and not optimizer.built:
            optimizer.build(model.trainable_variables)
        refuse_unusable(model, optimizer)
        self._counted = inner_of(optimizer)
        earlier = Hooks.on(self._counted)
        if earlier is not None:
            earlier.owner.make_room()
        self._watched = self._looked()
        self._slots = slots_of_backend()(self._watched, self._depth + 1)
        self._default = True
        self._want_next()
        self._hooks = Hooks(self, optimizer)
        self._hooks.put_on(self._apply, self._clip, self._update_step, self._slots.variables)
        compiled = model.jit_compile and not model.run_eagerly
        self._plain = model.train_function
        self._traced = traced_anew(model, self._slots.around if compiled else None)

    def want(self, steps: Iterable[int], *, newest: bool = False) -> int:
        """Record these coming steps, and no others; returns how many of them found no room: the last ones.

        With `newest` the newest update is kept as well, whichever it is (its sums are then taken at every step): for
        the end of an epoch of unknown length. What was not taken yet is forgotten.
        """
        slots = self._open()
        coming = sorted({int(step) for step in steps if step > self.step})
        slots.want(coming[: self._depth], newest=newest)
        self._default = False
        return max(0, len(coming) - self._depth)

    def take(self) -> list[tuple[int, dict[str, Matrix]]]:
        """(step, {quantity: [sums][tensors]}) of the recorded steps since the last take, oldest first.

        A column is NaN where there is none: no gradient, or a tensor that the optimizer does not train, for gradient
        and update. Weights that no step changes are measured here. On JAX moving statistics (role "buffer") are known
        at the newest step only, and only if that was the last one made.
        """
        slots = self._open()
        if self._failure:
            raise StateError(f"gradients and updates could not be measured in the training step ({self._failure})")
        found = sorted(slots.take(), key=lambda item: item[0])
        now, still = self.step, self._still() if "weight" in self._what else {}
        if self._default:
            self._want_next()
        return [(step, self._spread(sums, still, last=step == now)) for step, sums in found]

    def detach(self) -> None:
        """End: the optimizer and the training function are what they were."""
        if self._slots is None:
            return
        if self._model.train_function is self._traced:
            self._model.train_function = self._plain
        self._hooks.take_off()
        self._slots = None

    def make_room(self) -> None:
        """End, because another ring is put on the same optimizer."""
        self.detach()
        self._displaced = True

    # -- inside the step -----------------------------------------------------------------------------------------------

    def _apply(self, apply: Callable[..., Any], grads: Any, trainable_variables: Any = None) -> None:
        self._seen = False
        self._measure("before")
        apply(grads, trainable_variables)
        self._measure("after")
        if self._slots is not None and "grad" in self._what and not self._seen and self._watched.batches == 1:
            self._failure = f"{type(self._counted).__name__}.apply does not call _backend_update_step"

    def _clip(self, clip: Callable[[Any], Any], grads: Any) -> Any:
        """Clip; what is measured is clipped on its own where reading the others would change how they are rounded."""
        clipped = clip(grads)
        apart = None if self._slots is None else self._slots.apart
        self._apart = clip(apart(grads)) if apart is not None and clipped is not grads else None
        return clipped

    def _update_step(
        self, update: Callable[..., Any], grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        self._seen = True
        read = grads if self._apart is None else self._apart
        self._measure("gradients", dict(zip(map(self._watched.key, trainable_variables), read, strict=True)))
        update(grads, trainable_variables, learning_rate)

    def _measure(self, moment: str, *given: Any) -> None:
        """What the slots do at this moment of a step; training goes on where they cannot."""
        if self._slots is None or self._failure:  # detached, and somebody has kept the shadow
            return
        try:
            getattr(self._slots, moment)(*given)
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"

    # -- outside -------------------------------------------------------------------------------------------------------

    def _open(self) -> Slots:
        if self._slots is None:
            kind = type(self._model.optimizer).__name__
            if self._displaced:
                raise StateError(
                    f"another recorder of gradients has taken the place of this one on the model's {kind}: "
                    "give a fit one record(what=...) with all that is wanted"
                )
            raise StateError(f"this ring is not on the model's {kind}: attach() it first")
        return self._slots

    def _want_next(self) -> None:
        first = self.step + 1
        self._open().want(range(first, first + self._depth), newest=False)

    def _looked(self) -> Watched:
        """Which tensors the optimizer trains, which change without it, and which stand still."""
        key, known = self._counted._var_key, self._counted._trainable_variables_indices
        variables = [item.variable for item in self._located]
        trained = [i for i, each in enumerate(variables) if any(key(part) in known for part in parts_of(each))]
        buffers = [i for i, item in enumerate(self._located) if item.param.role == "buffer" and i not in trained]
        self._buffers = buffers if keras.backend.backend() == "jax" else []
        live = sorted(trained + [i for i in buffers if i not in self._buffers])
        self._columns = {"weight": live, "grad": trained, "update": trained}
        return Watched(
            self._counted,
            [variables[i] for i in live],
            [variables[i] for i in trained],
            self._what,
        )

    def _still(self) -> dict[int, Any]:
        """Column -> the sums [6] of what no step records, as they are now."""
        columns = sorted(set(range(len(self._located))) - set(self._columns["weight"]))
        if not columns:
            return {}
        values = [settled(self._located[i].variable) for i in columns]
        return dict(zip(columns, ops_of(values[0]).matrix_of_sums(values).T, strict=True))

    def _spread(self, sums: dict[str, Matrix], still: dict[int, Any], *, last: bool) -> dict[str, Matrix]:
        spread = {}
        for name, matrix in sums.items():
            spread[name] = np.full((ROWS[name], len(self._located)), np.nan)
            spread[name][:, self._columns[name]] = matrix
        for column, of_one in still.items():
            if last or column not in self._buffers:
                spread["weight"][:, column] = of_one
        return spread
