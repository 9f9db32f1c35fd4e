"""The Hugging Face porch: `from normkit.transformers import RecordNorms`.

trainer = Trainer(model, args, train_dataset=data, callbacks=[RecordNorms(csv="norms.csv")])
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers.trainer_callback import CallbackHandler, DefaultFlowCallback, TrainerCallback

from normkit.torch.porch import Porch, Resume, Terms
from normkit.types import QUANTITIES, When


class RecordNorms(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Records the norms of a model while a `transformers.Trainer` trains it, into one file.

    The arguments are those of `normkit.torch.record`. About ten numbers of the newest record, `Recorder.figures()`,
    join the trainer's own logs as `normkit/weight_l2`, ... at `logging_steps`, so `state.log_history` has them and
    whatever `report_to` names. Steps are optimizer steps, the trainer's `global_step`. Training that goes on from a
    checkpoint is recorded under the trainer's steps: into a new file, or with `resume` into that of the earlier run.

    recorder  the recording under way, or the last one: `.path`, `.findings`

    Raises: ArgumentError for what makes no sense, when it is made; when training begins what `record` raises, and
    StateError where another trainer is at work with it.
    """

    def __init__(
        self,
        to: str | Path | None = None,
        *,
        every: When = "auto",
        select: Any = None,
        what: Sequence[str] = QUANTITIES,
        per: str | Mapping[str, str] = "tensor",
        overhead: float = 0.01,
        quiet: bool = False,
        resume: Resume = False,
        step: int | None = None,
        budget: int | str | None = "256 MB",
        ranks: Literal["first", "all"] = "first",
        csv: str | Path | None = None,
        tensorboard: str | Path | None = None,
        wandb: Any = None,
        mlflow: Any = None,
    ) -> None:
        terms = Terms(
            to=to,
            every=every,
            what=what,
            per=per,
            overhead=overhead,
            quiet=quiet,
            resume=resume,
            step=step,
            budget=budget,
            ranks=ranks,
            csv=csv,
            tensorboard=tensorboard,
            wandb=wandb,
            mlflow=mlflow,
        )
        self._porch = Porch(terms, select)
        self._control: Any = None  # a trainer has one for life

    @property
    def recorder(self) -> Any:
        return self._porch.recorder

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        if self._porch.running and (self._control is control or not at_work(self._control)):
            self._porch.cut()  # an error ended the training before, which callbacks are not told
        self._control = control
        self._porch.begin(model, [optimizer], made=int(state.global_step), epochs=int(state.epoch or 0))
        before_reporters(self)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self._porch.running and logs is not None and "loss" in logs:
            curves = self._porch.curves()
            logs.update(curves)
            if state.log_history:
                state.log_history[-1].update(curves)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._porch.epoch()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._porch.end()


def at_work(control: Any) -> bool:
    """Does the trainer with this `control` train, in any thread? A method of it is running then."""
    for frame in sys._current_frames().values():
        caller: Any = frame
        while caller is not None:
            if held_by(caller.f_locals.get("self")).get("control") is control:
                return True
            caller = caller.f_back
    return False


def held_by(thing: Any) -> dict[str, Any]:
    """The attributes that `thing` itself holds; asking it for one may run code of its own."""
    try:
        return {**vars(thing)}
    except TypeError:
        return {}


def before_reporters(callback: TrainerCallback) -> None:
    """Let `callback` add to the logs before those are called that report them: a trainer puts its own callbacks first.

    A callback is never told of the handler that calls it, so it is looked for among the callers.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        handler = frame.f_locals.get("self")
        if isinstance(handler, CallbackHandler) and callback in handler.callbacks:
            others = [each for each in handler.callbacks if each is not callback]
            flow = [each for each in others if isinstance(each, DefaultFlowCallback)]
            handler.callbacks = [*flow, callback, *(each for each in others if each not in flow)]
            return
        frame = frame.f_back
