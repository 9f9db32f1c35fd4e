"""What the callbacks of trainers share: one recording per fit, its curves for the trainer's logger, its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from normkit.errors import StateError
from normkit.recording.search import Resume
from normkit.recording.terms import Terms
from normkit.torch.arguments import sort_out
from normkit.torch.entry import begin
from normkit.torch.recorder import TorchRecorder

__all__ = ["Porch", "Resume", "Terms"]  # all that a porch needs of this side

PREFIX = "normkit/"


class Porch:
    """Begins and ends the recordings of one callback.

    recorder  the recording under way, or the last one; None before the first
    """

    def __init__(self, terms: Terms, select: Any) -> None:
        self.recorder: TorchRecorder | None = None
        self._terms, self._select = terms, select

    @property
    def path(self) -> Path | None:
        """The file of the last recording, None before there is one."""
        return None if self.recorder is None else self.recorder.path

    @property
    def running(self) -> bool:
        """Is a recording under way?"""
        return self.recorder is not None and not self.recorder.closed

    def begin(
        self, model: torch.nn.Module, optimizers: Sequence[Any], *, made: int, epochs: int, earlier: Path | None = None
    ) -> None:
        """A recording of this fit, which has made so many steps before. `earlier` is the file of the same training.

        Where the trainer goes on with what it did before, so does the recording; a first one begins at its step.
        """
        if self.running:
            raise StateError(
                f"this RecordNorms records another fit in {self.path} just now; give each trainer one of its own"
            )
        terms = self._terms
        known = earlier is not None and earlier.exists() and terms.ranks == "first"
        if known and (terms.resume or self.path == earlier):
            terms = replace(terms, to=earlier, resume=True)
        counts = len(optimizers) == 1  # trainers add the steps of several up
        if terms.resume and terms.step is None and counts and made:
            terms = replace(terms, step=made)
        whole, torch_optimizers = sort_out(model, list(optimizers))
        self.recorder = begin(whole, torch_optimizers, terms, select=self._select)
        self.recorder._epoch = epochs or None
        if counts and made and self.recorder._past is None:
            self.recorder.steps = made

    def curves(self) -> dict[str, float]:
        """`Recorder.figures` under the names that they have in a logger."""
        if self.recorder is None:
            return {}
        return {f"{PREFIX}{name}": value for name, value in self.recorder.figures(findings=True).items()}

    def epoch(self) -> None:
        """An epoch ended."""
        if self.recorder is not None:
            self.recorder.epoch()

    def cut(self) -> None:
        """Training ended in a way that nobody was told of."""
        if self.recorder is not None:
            self.recorder.close(end="interrupted")

    def end(self, error: BaseException | None = None) -> None:
        """Finish the recording; training ended, or `error` ended it."""
        if self.recorder is not None:
            self.recorder.__exit__(None if error is None else type(error), error, None)
