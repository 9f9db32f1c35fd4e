"""A recording as curves: event files for TensorBoard, a run in W&B or MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normkit.errors import ArgumentError, FileError, NormkitError, StateError
from normkit.recording.figures import NEEDS, Members, figures
from normkit.sinks import mlflow, tensorboard, wandb
from normkit.sinks.slices import Sink, Slice, slices
from normkit.types import QUANTITIES, SUMS, Reading

if TYPE_CHECKING:
    from normkit.readers.recording import Recording
    from normkit.types import Matrix


def to_folder(recording: Recording, names: set[str] | None, folder: Path, norms: Sequence[str]) -> str:
    """Write TensorBoard's file into a folder that is new or empty; the result says what was done."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ArgumentError(f"{str(folder)!r} is there already and stays as it is; give another folder with -o")
    sink = tensorboard.EventFile(folder, norms=norms, thinned=False)
    made = not folder.exists()
    try:
        steps = fill(sink, parts(recording, names, norms))
    except BaseException as error:
        for file in folder.glob(f"*{tensorboard.SUFFIX}"):
            file.unlink()
        with suppress(OSError):
            if made:
                folder.rmdir()
        if isinstance(error, OSError):
            raise FileError(f"cannot write into {str(folder)!r}: {error.strerror or error}") from None
        raise
    return f"wrote {steps} to {folder}; tensorboard --logdir {folder} shows them"


def to_wandb(recording: Recording, names: set[str] | None, project: str | None) -> str:
    """Make a run in W&B, with a row for each step."""
    with _answering("W&B"), wandb.begun(project, recording.path.stem) as run:
        steps = fill(wandb.Curves(run, alone=True), parts(recording, names, ()))
    return f"wrote {steps} to the W&B run {run.name!r}"


def to_mlflow(recording: Recording, names: set[str] | None, experiment: str | None) -> str:
    """Make a run in MLflow, with the curves of all steps."""
    with _answering("MLflow"), mlflow.begun(experiment, recording.path.stem) as run:
        steps = fill(mlflow.Curves(run), parts(recording, names, ()))
    return f"wrote {steps} to the MLflow run {run}"


@contextmanager
def _answering(whom: str) -> Iterator[None]:
    """Its own errors as one sentence."""
    try:
        yield
    except NormkitError:
        raise
    except Exception as error:
        raise StateError(f"{whom} did not take the run: {' '.join(str(error).split())[:300]}") from None


def fill(sink: Sink, parts: Iterator[Slice]) -> str:
    """Give the sink all slices; the result is their number in words."""
    count = 0
    try:
        for part in parts:
            sink.put(part)
            count += 1
    finally:
        sink.close()
    return f"{count:,} step{'' if count == 1 else 's'}"


def parts(recording: Recording, names: set[str] | None, norms: Sequence[str]) -> Iterator[Slice]:
    """The slices of a recording, with the figures of the tensors that are taken."""
    columns = [n for n, param in enumerate(recording.params) if names is None or param.name in names]
    members = Members([recording.params[n] for n in columns])
    counts = {word: recording.sums("nonfinite", word) for word in QUANTITIES}
    known = {word: matrix for word, matrix in counts.items() if not np.isnan(matrix).all()}
    found = _figures(recording, known, columns, members)
    return slices(recording, norms, known if norms else {}, select=names, figures=found)


def _figures(
    recording: Recording, known: Mapping[str, Matrix], columns: list[int], members: Members
) -> Iterator[dict[str, float]]:
    """The figures of each step; `known` are the counts of non-finite entries, of the quantities that there are."""
    sums = np.empty((len(known), len(recording), len(SUMS), len(columns)))  # rows that no figure needs stay as they are
    for place, (word, counts) in enumerate(known.items()):
        for name in NEEDS:
            matrix = counts if name == "nonfinite" else recording.sums(name, word)
            sums[place, :, SUMS.index(name)] = matrix[:, columns]
    for row in range(len(recording)):
        yield figures(Reading(0, 0, 0.0, dict(zip(known, sums[:, row], strict=True))), members)
