"""Which optimizer step a `fit` stands at, told from its batches where that is exact: asking would wait for a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from normkit.keras.again import Weakly
from normkit.keras.inside import is_plain, rounds_of
from normkit.keras.optimizers import optimizers_of
from normkit.keras.ring_hooks import inner_of, is_scaled, leaves_of


class Count:
    """Counts optimizer steps as `optimizer.iterations` does.

    One batch makes one call of the optimizer where the training step and the optimizer are Keras' own, and how many
    batches are done is known before each one begins. Anywhere else (a `train_step` of the user's own, dynamic loss
    scaling, several steps per execution over data of unknown length) the optimizer is asked.

    One that has not moved by the end of a `fit`'s first epoch is not the one that trains: from then on each batch is a
    step, or each epoch where nobody counts batches; in later `fit`s of `earlier`'s optimizer from the first one on.

    round   the optimizer's newest call, as far as known
    idle    does another optimizer train than the one that the model was compiled with?
    per_step    calls that make one step: more than one under gradient accumulation
    unit    what is a step where that is so
    """

    def __init__(
        self, model: Any, params: Mapping[str, Any] | None, *, batch: int = 0, earlier: Count | None = None
    ) -> None:
        optimizer = getattr(model, "optimizer", None)
        self._length = (params or {}).get("steps")
        self.per_step = int(getattr(inner_of(optimizer), "gradient_accumulation_steps", None) or 1)
        self._scaled = is_scaled(optimizer)
        self._plain = optimizer is not None and is_plain(model) and bool(model.trainable_variables)
        one_call = self._length is not None or getattr(model, "steps_per_execution", 1) == 1
        self._told = self._plain and one_call and not self._scaled
        self._begun = self.round = rounds(model)
        self._base = self._begun - batch
        self._earlier, self._here = 0, 0  # batches of earlier epochs and of this one
        self._optimizer = Weakly(optimizer)
        self.idle: bool = optimizer is None or (
            earlier is not None and earlier.idle and earlier._optimizer.holds(optimizer)
        )
        self.unit = "batch"

    @property
    def trains(self) -> bool:
        """Is it known that the model's optimizer is the one that trains?"""
        return not self.idle and (self._plain or self.round > 0)

    def idleness(self, model: Any) -> str:
        """Why steps are no longer those of the optimizer, in words."""
        return (
            f"{type(model.optimizer).__name__}, which the model was compiled with, made no step in this epoch: others "
            f"train, or nothing does; each {self.unit} counts as a step"
        )

    def before(self, batch: int, model: Callable[[], Any]) -> int:
        """Steps made when batch number `batch` of an epoch is about to begin; `model()` attaches its state."""
        self._here = batch
        if not self._told:
            return self.asked(model())
        self.round = self._base + batch
        return self.round // self.per_step

    def ended(self, model: Any) -> int:
        """Steps made at the end of an epoch, when asking costs nothing."""
        if not self._earlier:
            self.unit = "batch" if self._length or self._here else "epoch"
            self.idle = self.idle or (rounds(model) == self._begun and not self._scaled)
        self._earlier, self._here = self._earlier + (self._length or self._here + 1), 0
        steps = self.asked(model)
        self._base = self.round
        return steps

    def asked(self, model: Any) -> int:
        """Steps made, as the optimizer says."""
        self.round = rounds(model)
        if self.idle:
            return self._begun // self.per_step + self._earlier + self._here
        return self.round // self.per_step


def rounds(model: Any) -> int:
    """Calls of the optimizer in its life; gradient accumulation makes one step of several."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    return int(rounds_of(inner_of(optimizer)).value)


def others_train(model: Any) -> bool:
    """Are the steps made by optimizers that the model holds besides, and not by the one of `compile`?"""
    making = optimizers_of(model)
    given = leaves_of(inner_of(getattr(model, "optimizer", None)))
    return bool(making) and not any(each is leaf for each in making for leaf in given)
