"""A few curves for MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from normkit.errors import ArgumentError, StateError, in_brief
from normkit.sinks.slices import Slice, summary

AT_ONCE = 1000  # metrics in one request: MLflow's own limit
LONGEST = 250  # bytes of a name; MLflow's own limit is as many characters
REFUSED = re.compile(r"[^\w.\- /:]")  # in a name
NO_PART = re.compile(r"(?<![^/])\.{0,2}(?![^/])")  # of a name as a path: nothing, one dot, two dots


class Curves:
    """Logs the figures and scalars of each slice to a run, as `normkit/weight_l2` at the optimizer step.

    Values gather until `flush`; one request takes many.
    """

    norms: tuple[str, ...] = ()
    figures = True

    def __init__(self, run: str) -> None:
        library = mlflow()
        self._run = run
        self._client = library.MlflowClient(library.get_tracking_uri())  # whatever the script sets later
        self._metric = library.entities.Metric
        self._metrics: list[Any] = []
        self._names: dict[str, str] = {}

    def put(self, part: Slice) -> None:
        """Take one step."""
        wall = int(1000 * part.wall)
        self._metrics += [
            self._metric(self._name(f"normkit/{name}"), float(value), wall, part.step)
            for name, value in summary(part).items()
        ]
        if len(self._metrics) > AT_ONCE:
            self.flush()

    def _name(self, name: str) -> str:
        """As MLflow takes it, and unlike the other ones: one that it refuses would cost all curves."""
        if name not in self._names:
            taken = {*self._names.values()}
            endings = ("", *(f"-{number}" for number in range(2, len(taken) + 3)))
            self._names[name] = next(known for ending in endings if (known := accepted(name, ending)) not in taken)
        return self._names[name]

    def flush(self) -> None:
        """Send what has gathered."""
        while self._metrics:
            self._client.log_batch(self._run, metrics=self._metrics[:AT_ONCE])
            del self._metrics[:AT_ONCE]

    def close(self) -> None:
        """Send the rest."""
        self.flush()


def accepted(name: str, ending: str = "") -> str:
    """The name with the ending, as MLflow accepts it.

    >>> accepted("normkit/a&b"), accepted("normkit//loss/", "-2"), len(accepted("normkit/" + 300 * "x", "-2"))
    ('normkit/a_b', 'normkit/_/loss/_-2', 250)
    """
    whole, room = NO_PART.sub("_", REFUSED.sub("_", name)), LONGEST - len(ending)
    if len(whole.encode()) > room:
        whole = whole.encode()[:room].decode(errors="ignore").rstrip("/.")
    return whole + ending


def run_of(given: Any) -> str:
    """The id of the run that `mlflow=` means: True is the active one.

    Raises: StateError where there is none. ArgumentError where the id is not known.
    """
    library = mlflow()
    if given is True:
        run = library.active_run()
        if run is None:
            raise StateError(f"mlflow={given} means the active run, and there is none; call mlflow.start_run() first")
        return str(run.info.run_id)
    name = given if isinstance(given, str) else given.info.run_id
    try:
        library.MlflowClient().get_run(name)
    except Exception as error:
        why = " ".join(str(error).split())[:120]
        raise ArgumentError(f"mlflow={in_brief(name)} is the id of no run that can be reached ({why})") from None
    return str(name)


def check(given: Any) -> None:
    """Raises: ArgumentError unless `given` is None, a bool, a run or the id of one."""
    if given is None or isinstance(given, bool):
        return
    known = given.strip() if isinstance(given, str) else getattr(getattr(given, "info", None), "run_id", None)
    if not isinstance(known, str) or not known:
        raise ArgumentError(f"mlflow={in_brief(given)}: expected True (the active run) or the id of a run")


@contextmanager
def begun(experiment: str | None, name: str) -> Iterator[str]:
    """The id of a new run of the experiment, or of the one that MLflow takes by itself; it ends with the block."""
    library = mlflow()
    if experiment is not None:
        library.set_experiment(experiment)
    with library.start_run(run_name=name) as run:
        yield str(run.info.run_id)


def mlflow() -> Any:
    """The library. Raises: ArgumentError where it is not installed."""
    try:
        import mlflow as library
    except ImportError as error:
        raise ArgumentError(
            f"curves for MLflow need mlflow ({error}); `pip install 'normkit[mlflow]'` brings it"
        ) from None
    return library
