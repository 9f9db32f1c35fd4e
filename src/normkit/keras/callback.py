"""`record`: the callback that records the weights of a Keras model while `fit` trains it."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from normkit.errors import ArgumentError, StateError, in_brief
from normkit.keras.again import is_newest
from normkit.keras.inside import build_from_fit
from normkit.keras.recorder import KerasRecorder
from normkit.keras.walk import check_model
from normkit.recording.about import warn_once
from normkit.recording.grouped import grouped
from normkit.recording.rank import told_rank
from normkit.recording.search import Resume
from normkit.recording.terms import Terms
from normkit.select.rules import parse
from normkit.types import QUANTITIES, Every, Finding, When

LOGGED = ("weight_l2", "weight_linf", "grad_l2", "update_l2", "update_ratio")  # what stands in `logs` at an epoch's end


class RecordNorms(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Record the norms of the model that `fit` trains, into one file: `model.fit(..., callbacks=[nk.record()])`.

    A record of step t holds, for every chosen weight w, the sums (`types.SUMS`) of

        weight   w_t, just after step t (the first record: before training)
        grad     g_t as the optimizer used it: accumulated, clipped, unscaled; `dot` is <w_{t-1}, g_t>
        update   w_t - w_{t-1}; `dot` is <w_{t-1}, w_t - w_{t-1}>

    Steps are those of `optimizer.iterations`. The figures weight_l2, weight_linf and, where they are recorded, grad_l2,
    update_l2, update_ratio of the epoch's last step (NaN where that was not measured) come into `logs` at its end:
    `History`, and a `CSVLogger` that stands behind this callback, see them. Keras' own logs become its scalars.

    What callbacks before this one, or `use_ema`, change after the last step stands as an event and in meta["left"].

    to         the file; default runs/<script>-<date>-<time>.norms. An existing file is never written to: mine-2.norms
    every      `Every(epochs=1)`, a number of optimizer steps, "auto" (each of the first 100 steps, then every 10,
               stretched to stay under `overhead`), or a function of the step. The weights before and after training
               are there in any case. With `steps_per_execution` weights are seen between executions
    select     which tensors (docs: select); default: everything trainable
    what       quantities; gradients and updates are taken inside the training step, exact at each
    per        "out", "in", or the number of the axis that is kept: the same sums also for each unit of a layer. A dict
               says for which: {"head": "out"}. Of weights only
    overhead   what "auto" may cost, as a share of the training time; of gradients and updates, which are taken inside
               the training step, the cost is not known, and "auto" passes over no step
    quiet      say nothing at start and end
    resume     True goes on with the recording at `to`, or with the newest one of this script, as a further attempt;
               "auto" does so where there is one to go on with. A callback given to `fit` again goes on by itself,
               with another model in a new file
    step       the optimizer step at which a resumed run stands, where neither weights nor optimizer can tell
    budget     bytes, or a text such as "1 GB", that the file is kept under. None is no limit
    csv, tensorboard, wandb, mlflow   where the numbers go besides (docs: sinks)

    recorder   the `KerasRecorder` of the newest `fit`, or None
    busy       is a `fit` being recorded now?
    path       the file, once training has begun
    findings   what was found, once training has ended

    Recording changes no weight, and asks no device for anything between the steps that are recorded. Gradients on
    TensorFlow are the exception: handing them out of the compiled step may round a weight otherwise, by 1e-7 of it.

    Raises: ArgumentError for arguments that make no sense; when training begins, ArgumentError for a rule that matches
    nothing and FileError for a path that cannot be written. After the first step, nothing.
    """

    _logged: Sequence[str] = LOGGED

    def __init__(
        self,
        to: str | Path | None = None,
        *,
        every: When = Every(epochs=1),  # noqa: B008  frozen
        select: Any = None,
        what: Sequence[str] = ("weight",),
        per: str | Mapping[str, str] = "tensor",
        overhead: float = 0.01,
        quiet: bool = False,
        resume: Resume = False,
        step: int | None = None,
        budget: int | str | None = "256 MB",
        csv: str | Path | None = None,
        tensorboard: str | Path | None = None,
        wandb: Any = None,
        mlflow: Any = None,
    ) -> None:
        super().__init__()
        _check(to, select, what, per, resume)
        self._select = select
        self._terms = Terms(
            to=to,
            every=every,
            what=what,
            per=per,
            overhead=overhead,
            quiet=quiet,
            resume=resume,
            step=step,
            budget=budget,
            csv=csv,
            tensorboard=tensorboard,
            wandb=wandb,
            mlflow=mlflow,
        )
        rule = self._terms.schedule().rule
        self._by_steps = rule is None or rule.epochs is None or rule.first > 0
        self._thread: int | None = None
        self._earlier: KerasRecorder | None = None
        self.recorder: KerasRecorder | None = None

    @property
    def path(self) -> Path | None:
        """The file, once training has begun."""
        return None if self.recorder is None else self.recorder.path

    @property
    def findings(self) -> list[Finding]:
        """What was found, once training has ended."""
        return [] if self.recorder is None else self.recorder.findings

    @property
    def busy(self) -> bool:
        """Is a `fit` being recorded now?"""
        return self.recorder is not None and self.recorder.model is not None

    def close(self, end: str = "finished") -> None:
        """Finish the file of a training that broke off; after a `fit` that ended there is nothing to do."""
        if self.recorder is not None:
            self.recorder.close(end)

    # -- what Keras calls ------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the file. The weights before training are recorded when the first epoch begins: see `on_epoch_begin`."""
        self._enter()
        if self.recorder is not None and not self.recorder.closed:
            self.recorder.abandon()
        self._begin()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """By now every callback has had its `on_train_begin`, where some restore weights and optimizer."""
        if self.recorder is not None:
            self.recorder.begin()

    @property
    def on_train_batch_begin(self) -> Any:
        """Between two steps. Keras sees the hook only where steps are recorded: it costs what it does at each batch.

        The end of a batch would come in another thread when the callback is given alone instead of in a list, and
        would make Keras wait for the loss at each step.
        """
        return self._before_batch if self._by_steps else super().on_train_batch_begin

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record an epoch, and put its figures into `logs`."""
        if self.recorder is None:
            self._begin()
        if self.recorder is not None:
            self.recorder.end_epoch(epoch, logs)
            if logs is not None:
                logs.update(self._figures(self.recorder))

    def _figures(self, recorder: KerasRecorder) -> dict[str, float]:
        """The same keys at each epoch; NaN for what was not measured at its last step."""
        kept = [name for name in self._logged if recorder.path and name.partition("_")[0] in recorder.what]
        found = recorder.figures_now() if kept else {}
        return {name: found.get(name, math.nan) for name in kept}

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Record the weights that training leaves, and finish the file."""
        if self.recorder is not None:
            self.recorder.close()

    def _before_batch(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self.recorder is None:
            self._begin()
            if self.recorder is not None:
                self.recorder.begin(batch)
        elif threading.get_ident() == self._thread:
            self.recorder.before_batch(batch)
        elif not self.recorder.closed:
            self.recorder._break(
                StateError("Keras called the recorder from another thread, where weights of other steps would be seen")
            )

    # -- beginning -------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        """A model that its first step would build is built now, so that its first weights are seen."""
        self._thread = threading.get_ident()
        model = self.model
        check_model(model)
        if not model.weights:
            try:
                build_from_fit(model)
            except Exception as error:  # training itself will say what is wrong, or build it in its own way
                warn_once(
                    f"{type(model).__name__} could not be built before training ({error}); recording begins later"
                )

    def _begin(self) -> None:
        """Open a file as soon as there are weights: the one that this callback has made before, for the same model."""
        model = self.model
        if not model.weights:
            self.recorder = None
            return
        earlier, terms = self._earlier, self._terms
        if earlier is not None and not _is_of(earlier, model):
            earlier, terms = None, replace(terms, resume=False, step=None)
        elif earlier is not None:
            terms = replace(terms, to=earlier.path, resume="auto", step=None)
        self.recorder = KerasRecorder(terms, enabled=told_rank() == 0)
        self.recorder.start(model, self.params, self._select, earlier)
        self._earlier = self.recorder


def _is_of(recorder: KerasRecorder, model: Any) -> bool:
    """Is its recording of this model: the very same, or one with the weights of the newest record?"""
    return recorder.path is not None and (recorder.of.holds(model) or is_newest(model, recorder.path))


def _check(to: Any, select: Any, what: Any, per: Any, resume: Any) -> None:
    """Raises: ArgumentError for what can be known to be wrong before there is a model."""
    if isinstance(to, keras.layers.Layer | keras.optimizers.Optimizer):
        raise ArgumentError(
            f"to={type(to).__name__}: record() takes no model; give the callback to fit: "
            "model.fit(..., callbacks=[nk.record()])"
        )
    if to is not None and not isinstance(to, str | os.PathLike):
        raise ArgumentError(f"to={in_brief(to)}: expected the path of a file, such as 'runs/mine.norms'")
    if not isinstance(resume, bool) and resume != "auto":
        raise ArgumentError(f"resume={in_brief(resume)}: expected True, False or 'auto'")
    parse(select)
    if not isinstance(per, Mapping):
        grouped([], per)
    if not isinstance(what, str) and not [*what]:
        raise ArgumentError(f"what={what!r} is empty: expected some of {', '.join(QUANTITIES)}")
    if per != "tensor" and {"grad", "update"} & {*([what] if isinstance(what, str) else what)}:
        raise ArgumentError(
            f"per={in_brief(per)} with gradients or updates: units are measured between steps and these inside them; "
            "give fit two callbacks, one with per= and one with what="
        )
