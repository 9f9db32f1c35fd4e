"""The live sinks that a recording was asked for: a table, curves for TensorBoard, W&B and MLflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from normkit.errors import FileError
from normkit.recording.board import TensorBoard
from normkit.recording.figures import Members
from normkit.recording.outlet import Outlet
from normkit.recording.terms import Terms
from normkit.sinks import events, mlflow, tensorboard, wandb
from normkit.sinks.slices import Sink
from normkit.sinks.table import Table
from normkit.store.paths import shown
from normkit.types import Param, Reading

Places = dict[str, str]  # csv, tensorboard -> the absolute path that was asked for


class Outlets:
    """Opens what `terms` ask for and hands it every finished reading; what goes wrong later reaches nobody.

    Raises: ArgumentError or StateError, before anything is made, where a library is not installed or no run is active.
    """

    def __init__(self, terms: Terms | None) -> None:
        self._open: list[Outlet] = []
        self._asked: Places = {}
        self._board: TensorBoard | None = None
        self._runs: list[tuple[str, Callable[[], Sink]]] = []
        if terms is None:
            return
        self._board = TensorBoard.of(terms.tensorboard)
        if terms.csv is not None:
            self._asked["csv"] = _absolute(terms.csv)
        if self._board is not None:
            events.checksum()
            self._asked["tensorboard"] = _absolute(self._board.folder)
        if terms.wandb:
            run = wandb.run_of(terms.wandb)
            self._runs.append(("W&B", lambda: wandb.Curves(run)))
        if terms.mlflow:
            name = mlflow.run_of(terms.mlflow)
            self._runs.append(("MLflow", lambda: mlflow.Curves(name)))

    def open(self, params: Sequence[Param], past: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
        """Make the files, or go on with those of the `past`, the metadata of a resumed recording; the result is what
        the metadata shall say of them. A name that is taken is left alone.

        Raises: FileError where a file or folder cannot be made. ArgumentError where one to go on with is no table.
        """
        try:
            places = self._opened(params, past.get("outlets") or {}, say)
        except BaseException:
            self.close()
            raise
        return {"outlets": places} if places else {}

    def _opened(
        self, params: Sequence[Param], known: Mapping[str, Any], say: Callable[[str], None]
    ) -> dict[str, list[str]]:
        places = {}
        if (board := self._board) is not None:
            many = len(board.chosen(params))
            folder, resumed = _folder(self._asked["tensorboard"], known.get("tensorboard"), say)
            sink = tensorboard.EventFile(
                folder, norms=board.norms, select=board.chosen, most=board.most, resumed=resumed
            )
            self._begin(sink)
            self._add(f"TensorBoard's {shown(folder)}", sink)
            places["tensorboard"] = [self._asked["tensorboard"], str(folder)]
            if board.most is not None and many > board.most:
                least = f"tensorboard: curves of the {board.most} largest of {many:,} tensors"
                say(f"{least}; nk.TensorBoard(folder, select=..., most=...) chooses others")
        for name, begin in self._runs:
            self._add(name, begin())
        if "csv" in self._asked:
            table = _table(self._asked["csv"], known.get("csv"), say)
            self._add(shown(table.path), table)
            places["csv"] = [self._asked["csv"], str(table.path)]
        return places

    def take(self, reading: Reading, members: Members) -> None:
        """A finished reading."""
        for each in self._open:
            each.take(reading, members)

    def amend(self, step: int, scalars: dict[str, float]) -> None:
        """Scalars that came after their reading."""
        for each in self._open:
            each.amend(step, scalars)

    def close(self, *, wait: bool = True) -> None:
        """Hand over the rest, and close all of them."""
        for each in self._open:
            each.close(wait=wait)
        self._open = []

    @staticmethod
    def _begin(sink: tensorboard.EventFile) -> None:
        try:
            sink.begin()
        except OSError as error:
            where = shown(sink.folder)
            raise FileError(
                f"tensorboard={where!r} cannot be written ({error.strerror}); give another folder"
            ) from None

    def _add(self, name: str, sink: Sink) -> None:
        self._open.append(Outlet(name, sink))


def _absolute(path: str | Path) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _folder(asked: str, known: Sequence[str] | None, say: Callable[[str], None]) -> tuple[Path, bool]:
    """A folder in which no other run's curves are, and whether it is the one to go on with."""
    if known and known[0] == asked:
        return Path(known[1]), True
    folder = next(each for each in _names(Path(asked)) if not tensorboard.begun_by_normkit(each))
    if folder != Path(asked):
        say(f"{shown(asked)} holds the curves of another run; writing to {shown(folder)}")
    return folder, False


def _table(asked: str, known: Sequence[str] | None, say: Callable[[str], None]) -> Table:
    """A new table, or the one to go on with."""
    if known and known[0] == asked and os.path.exists(known[1]):
        return Table(Path(known[1]), resumed=True)
    path = next(each for each in _names(Path(asked)) if not os.path.lexists(each))
    table = Table(path)
    if path != Path(asked):
        say(f"{shown(asked)} exists and is kept; writing to {shown(path)}")
    return table


def _names(path: Path) -> Iterator[Path]:
    """The path, and what it is called where that name is taken."""
    yield path
    yield from (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
