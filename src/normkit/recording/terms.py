"""What a recording was asked for, checked; the same in every framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from normkit.errors import ArgumentError, in_brief
from normkit.recording.board import TensorBoard
from normkit.recording.checks import check_budget, check_step, check_table, check_what
from normkit.recording.schedule import Schedule
from normkit.recording.search import Resume
from normkit.sinks import mlflow, wandb
from normkit.store.paths import SUFFIX, default_name
from normkit.types import QUANTITIES, When


@dataclass(frozen=True)
class Terms:
    """Where, when and what to record; the doors' `record` explains each.

    Raises: ArgumentError for what makes no sense.
    """

    to: str | Path | None = None
    every: When = "auto"
    what: Sequence[str] = QUANTITIES
    per: str | int | Mapping[str, str | int] = "tensor"
    overhead: float = 0.01
    quiet: bool = False
    resume: Resume = False
    step: int | None = None
    budget: int | str | None = "256 MB"
    ranks: Literal["first", "all"] = "first"
    csv: str | Path | None = None
    tensorboard: str | Path | TensorBoard | None = None
    wandb: Any = None
    mlflow: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "what", check_what(self.what))
        object.__setattr__(self, "step", check_step(self.step, self.resume))
        object.__setattr__(self, "budget", check_budget(self.budget))
        check_table(self.csv)
        object.__setattr__(self, "tensorboard", TensorBoard.of(self.tensorboard))
        wandb.check(self.wandb)
        mlflow.check(self.mlflow)
        if self.ranks not in ("first", "all"):
            raise ArgumentError(f"ranks={in_brief(self.ranks)}: expected 'first' or 'all'")
        if self.ranks == "all" and self.resume and self.to is None:
            raise ArgumentError(f"ranks='all' with resume={self.resume!r} needs to=, so that each rank finds its file")
        self.schedule()

    def for_rank(self, rank: int) -> Terms:
        """The terms of one process of several: with ranks="all" each has its own file; the first speaks and logs."""
        if self.ranks == "first":
            return self
        whole = str(default_name() if self.to is None else self.to)
        own = replace(self, to=f"{whole.removesuffix(SUFFIX)}.rank{rank}", quiet=self.quiet or rank > 0)
        return own if rank == 0 else replace(own, csv=None, tensorboard=None, wandb=None, mlflow=None)

    def schedule(self) -> Schedule:
        """A new schedule for these terms."""
        return Schedule(self.every, overhead=self.overhead)

    @property
    def bytes(self) -> int | None:
        """The budget."""
        return check_budget(self.budget)
