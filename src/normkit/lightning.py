"""The Lightning porch: `from normkit.lightning import RecordNorms`, for `lightning.pytorch` and `pytorch_lightning`.

trainer = Trainer(callbacks=[RecordNorms(csv="norms.csv")])
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from normkit.errors import ArgumentError
from normkit.torch.porch import Porch, Resume, Terms
from normkit.types import QUANTITIES, When

PACKAGES = ("lightning.pytorch", "pytorch_lightning")  # two distributions of the same; each has classes of its own


def _bases() -> tuple[type, ...]:
    """The callback classes of the packages that the user imported, else of the first one that is installed."""
    found = [name for name in PACKAGES if name in sys.modules]
    for name in PACKAGES:
        if not found:
            try:
                import_module(name)
            except ImportError:
                continue
            found = [name]
    if not found:
        raise ArgumentError(f"normkit.lightning needs {' or '.join(PACKAGES)}; `pip install lightning` brings it")
    return tuple(import_module(name).Callback for name in found)


_Callback: Any = type("_Callback", _bases(), {})


class RecordNorms(_Callback):  # type: ignore[misc]  # the base is known at run time only
    """Records the norms of a LightningModule while a Trainer fits it, into one file; see `normkit.torch.record`.

    The arguments are those of `normkit.torch.record`. About ten numbers of the newest record, `Recorder.figures()`, go
    to the trainer's loggers as `normkit/weight_l2`, ... at `log_every_n_steps`; other callbacks may monitor them.
    Steps are those of the first optimizer; with gradient accumulation the real ones only. A fit that goes on from a
    checkpoint records under the trainer's steps: into a new file, or with `resume` into that of the interrupted fit.

    recorder  the recording under way, or the last one: `.path`, `.findings`

    Raises: ArgumentError for what makes no sense, when it is made; at the start of a fit what `record` raises, and
    StateError where another fit is under way.
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
        super().__init__()
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
        self._to = to
        self._earlier: Path | None = None

    @property
    def recorder(self) -> Any:
        return self._porch.recorder

    @property
    def state_key(self) -> str:
        """So that one trainer may have several of these."""
        return f"{type(self).__qualname__}({'' if self._to is None else self._to})"

    def setup(self, trainer: Any, pl_module: Any = None, stage: str = "") -> None:
        if not isinstance(self, RecordNorms):  # a trainer takes a class, and calls this with one argument too few
            raise ArgumentError(f"callbacks=[{RecordNorms.__name__}] is the class; give an instance: RecordNorms()")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The checkpoint is loaded, the sanity check is over: training begins."""
        if not any(group["params"] for optimizer in trainer.optimizers for group in optimizer.param_groups):
            raise ArgumentError(
                f"{type(pl_module).__name__}.configure_optimizers gives no optimizer, so there are no steps to record"
            )
        made, epochs = int(trainer.global_step), int(trainer.current_epoch)
        earlier = self._earlier if made else None
        self._porch.begin(pl_module, trainer.optimizers, made=made, epochs=epochs, earlier=earlier)
        self._earlier = self._porch.path

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._porch.running and logs_now(trainer):
            pl_module.log_dict(
                self._porch.curves(), on_step=True, on_epoch=False, rank_zero_only=True, batch_size=1, sync_dist=False
            )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._porch.epoch()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._porch.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException | None = None) -> None:
        if isinstance(self, RecordNorms):
            self._porch.end(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._porch.end()

    def state_dict(self) -> dict[str, Any]:
        return {"path": None if self._porch.path is None else str(self._porch.path)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = state_dict.get("path")
        self._earlier = Path(path) if path and self._to is None else self._earlier


def logs_now(trainer: Any) -> bool:
    """Does the trainer log the metrics of this batch? Private, and where Lightning's own callbacks ask."""
    return bool(trainer._logger_connector.should_update_logs)
