"""A few curves for Weights & Biases, with the optimizer step as their own axis."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from normkit.errors import ArgumentError, StateError, in_brief
from normkit.sinks.slices import Slice, summary

STEP = "normkit/step"


class Curves:
    """Logs the figures and scalars of each slice to a run, as `normkit/weight_l2` over `normkit/step`.

    W&B counts rows, and refuses values for rows before its own count: a script that gives `step=` itself would lose
    its values if somebody else made rows. So the values join the row that the script logs next, the newest ones if
    there are several; only where the script has logged no row by the end, or `alone`, each slice makes one.
    """

    norms: tuple[str, ...] = ()
    figures = True

    def __init__(self, run: Any, *, alone: bool = False) -> None:
        self._run, self._alone = run, alone
        self._began = None if alone else run.step
        self._rows: list[dict[str, float]] = []
        run.define_metric("normkit/*", step_metric=STEP)

    def put(self, part: Slice) -> None:
        """Log one step."""
        values = {STEP: part.step, **{f"normkit/{name}": value for name, value in summary(part).items()}}
        self._log(values, commit=self._alone)
        if not self._alone:
            self._rows.append(values)

    def flush(self) -> None:
        """The rows of a script that logs its own are not needed any more."""
        if self._rows and self._run.step != self._began:
            self._rows.clear()

    def close(self) -> None:
        """Make the rows of a script that made none."""
        self.flush()
        nothing = dict.fromkeys((name for values in self._rows for name in values), float("nan"))
        for row, values in enumerate(self._rows):
            self._log({**nothing, **values} if row == 0 else values, commit=True)  # the first holds the newest ones

    def _log(self, values: dict[str, float], *, commit: bool) -> None:
        try:
            self._run.log(values, commit=commit)
        except Exception as error:
            if "is finished" not in str(error):
                raise
            raise StateError(
                f"the run was finished before the recorder, at step {values[STEP]}; close that one first"
            ) from None


def run_of(given: Any) -> Any:
    """The run that `wandb=` means: True, or the library itself, is the active one. Raises: StateError if none is."""
    if given is not True and not isinstance(given, ModuleType):
        return given
    run = wandb().run
    if run is None:
        asked = given if given is True else given.__name__
        raise StateError(f"wandb={asked} means the active run, and there is none; call wandb.init() first")
    return run


def check(given: Any) -> None:
    """Raises: ArgumentError unless `given` is None, a bool or a run."""
    if given is None or isinstance(given, bool):
        return
    if not all(callable(getattr(given, name, None)) for name in ("log", "define_metric")) or isinstance(given, type):
        raise ArgumentError(
            f"wandb={in_brief(given)}: expected True (the active run) or a run, as wandb.init() gives it"
        )


def begun(project: str | None, name: str) -> Any:
    """A new run of the project, or of the default one."""
    return wandb().init(project=project, name=name, settings=wandb().Settings(silent=True))


def wandb() -> Any:
    """The library. Raises: ArgumentError where it is not installed."""
    try:
        import wandb as library
    except ImportError as error:
        raise ArgumentError(f"curves for W&B need wandb ({error}); `pip install 'normkit[wandb]'` brings it") from None
    return library
