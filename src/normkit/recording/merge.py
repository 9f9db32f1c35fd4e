"""Recordings of one run that several processes made, as one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from normkit.errors import ArgumentError, FileError
from normkit.readers.recording import Recording
from normkit.store.paths import new_path, shown
from normkit.store.writer import Writer
from normkit.types import QUANTITIES, SUMS, Param, Reading

if TYPE_CHECKING:
    from normkit.types import Matrix

MAX = SUMS.index("max")
ROWS = {"weight": len(SUMS) - 1, "grad": len(SUMS), "update": len(SUMS)}


def merge(
    paths: Sequence[str | os.PathLike[str]], *, to: str | os.PathLike[str] | None = None, pieces: bool = False
) -> Path:
    """Join the recordings of one run that several processes made (`record(..., ranks="all")`) into a new one.

    Records of one step become one. Tensors that only one file has (stages of a pipeline) stand side by side. Of a
    tensor that several have, either all hold the same (replicas: the first one's numbers are taken), or each holds a
    piece of it (`pieces=True`): then

        sum, abs, sq, zeros, nonfinite, dot   add           max   the largest

    at the steps that all of them recorded.

    paths   two recordings or more; the first one gives the metadata and, where it has them, the scalars
    to      the new file, as for `record`; the result is its path

    Raises: ArgumentError for fewer than two, for the same file twice, and for replicas that are not equal. FileError
    for a file that cannot be read or made.
    """
    if isinstance(paths, str | os.PathLike):
        raise ArgumentError(f"paths={str(paths)!r}: expected two recordings or more")
    sources = [Recording(path) for path in paths]
    if len(sources) < 2:
        raise ArgumentError(f"paths={[str(path) for path in paths]}: expected two recordings or more")
    if len({os.path.realpath(source.path) for source in sources}) < len(sources):
        raise ArgumentError(f"{[str(path) for path in paths]} names a file twice; give each once")
    params = _joined(sources, pieces=pieces)
    path = new_path(to if to is not None else f"{sources[0].path.with_suffix('')}-merged").path
    meta = {key: value for key, value in sources[0].meta.items() if key != "findings"}  # those of a part of the whole
    writer = Writer(path, {**meta, "merged": [shown(source.path) for source in sources]}, budget=None)
    try:
        layout = writer.layout(list(params.values()))
        for step in _steps(sources, pieces=pieces):
            there = [source for source in sources if step in source.steps]
            writer.put(_record(step, there, list(params), layout, pieces=pieces))
        events = dict.fromkeys(event for source in sources for event in source.events)
        for event in sorted(events, key=lambda event: event.wall):
            writer.event(event.kind, event.text, event.step, event.tensor)
    except BaseException:
        writer.close()
        path.unlink(missing_ok=True)
        raise
    writer.close()
    if writer.error is not None:
        raise FileError(f"{shown(path)!r} could not be written whole: {writer.error}")
    return path


def _steps(sources: Sequence[Recording], *, pieces: bool) -> list[int]:
    """Steps that any of them recorded; of pieces those of all: a part must not pass for the whole."""
    recorded = [set(source.steps.tolist()) for source in sources]
    return sorted(set.intersection(*recorded) if pieces else set.union(*recorded))


def _joined(sources: Sequence[Recording], *, pieces: bool) -> dict[str, Param]:
    """Every tensor of all; one in pieces has the entries of all of them."""
    known: dict[str, list[Param]] = {}
    for source in sources:
        for param in source.params:
            known.setdefault(param.name, []).append(param)
    return {name: reduce(_whole, found) if pieces else found[0] for name, found in known.items()}


def _whole(a: Param, b: Param) -> Param:
    """One tensor of two pieces: along the only axis in which they differ, or the first; else flat."""
    other = [n for n, (x, y) in enumerate(zip(a.shape, b.shape, strict=False)) if x != y]
    if len(a.shape) != len(b.shape) or not a.shape or len(other) > 1:
        return replace(a, shape=(a.count + b.count,), out_axes=None, in_axes=None)
    cut = other[0] if other else 0
    return replace(a, shape=tuple(x + b.shape[n] if n == cut else x for n, x in enumerate(a.shape)))


def _record(step: int, sources: Sequence[Recording], names: Sequence[str], layout: int, *, pieces: bool) -> Reading:
    columns = {name: column for column, name in enumerate(names)}
    values: dict[str, Matrix] = {}
    scalars: dict[str, float] = {}
    readings = [(source, source.reading(step)) for source in sources]
    for source, reading in readings:
        scalars = {**reading.scalars, **scalars}
        places = np.array([columns[name] for name in source.tensors], dtype=np.int64)
        for quantity, matrix in reading.values.items():
            whole = values.setdefault(quantity, np.full((ROWS[quantity], len(names)), np.nan))
            whole[:, places] = _put(whole[:, places], matrix[: len(whole)], source, step, pieces=pieces)
    first = readings[0][1]
    ordered = {quantity: values[quantity] for quantity in QUANTITIES if quantity in values}
    return Reading(step, layout, first.wall, ordered, epoch=first.epoch, scalars=scalars)


def _put(old: Matrix, new: Matrix, source: Recording, step: int, *, pieces: bool) -> Matrix:
    """Both together, column by column; one that is NaN throughout is not there."""
    had, has = (~np.isnan(matrix[4]) for matrix in (old, new))  # counts are numbers even where every entry is NaN
    both = had & has
    joined = np.where(has, new, old)
    if pieces:
        joined[:, both] = (old + new)[:, both]
        joined[MAX, both] = np.maximum(old[MAX], new[MAX])[both]
    elif not np.array_equal(old[:, both], new[:, both], equal_nan=True):
        differ = both & ~((old == new) | (np.isnan(old) & np.isnan(new))).all(axis=0)
        name = source.tensors[int(np.flatnonzero(differ)[0])]
        raise ArgumentError(
            f"{name!r} differs at step {step} between {shown(source.path)!r} and the files before it; "
            "if each holds a piece of it, say pieces=True"
        )
    return joined
