"""What the writer's queue holds: each job knows its size and how to put itself into the file."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from normkit.errors import ArgumentError
from normkit.types import QUANTITIES, Finding, Param, Reading

if TYPE_CHECKING:
    from normkit.types import Matrix

RECORD = "INSERT INTO record (seq, step, attempt, epoch, wall, layout, scalars) VALUES (?, ?, ?, ?, ?, ?, ?)"
SUMS = 'INSERT INTO sums (seq, weight, grad, "update") VALUES (?, ?, ?, ?)'
META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
TENSOR = "INSERT INTO tensor VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
LAYOUT = 'INSERT INTO layout (layout, position, tensor, "group", per) VALUES (?, ?, ?, ?, ?)'
EVENT = "INSERT INTO event (wall, kind, text, step, tensor) VALUES (?, ?, ?, ?, ?)"
FINDING = (
    "INSERT INTO finding (rule, severity, text, remedy, tensors, basis, source, step, evidence)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
Column = tuple[Param, int | None, str | None]  # of a layout: the tensor, and which of its groups per what
SMALL = 256  # bytes that a job without matrices counts for


@dataclass(slots=True)
class Row:
    """One record, packed."""

    seq: int
    head: tuple[int, int, int | None, float, int]  # step, attempt, epoch, wall, layout
    scalars: dict[str, float]
    blobs: tuple[bytes | None, ...]
    width: int  # columns of the layout
    since: float = 0.0  # monotonic time of its arrival

    @property
    def size(self) -> int:
        return SMALL + sum(len(blob) for blob in self.blobs if blob is not None)

    @property
    def family(self) -> tuple[int, int]:
        """Its attempt and layout."""
        return self.head[1], self.head[4]

    def run(self, con: sqlite3.Connection) -> None:
        con.execute(RECORD, (self.seq, *self.head, to_json(self.scalars)))
        con.execute(SUMS, (self.seq, *self.blobs))


@dataclass(slots=True)
class Amend:
    """Scalars that came after their record was written."""

    seq: int
    scalars: dict[str, float]
    size: int = SMALL

    def run(self, con: sqlite3.Connection) -> None:
        found = con.execute("SELECT scalars FROM record WHERE seq = ?", (self.seq,)).fetchone()
        if found is not None:
            merged = to_json(json.loads(found[0]) | self.scalars)
            con.execute("UPDATE record SET scalars = ? WHERE seq = ?", (merged, self.seq))


@dataclass(slots=True)
class Insert:
    """Rows of one of the small tables."""

    sql: str
    rows: Sequence[Sequence[Any]]
    width: int = 0  # columns of the layout, where it is one
    size: int = field(default=SMALL)

    def run(self, con: sqlite3.Connection) -> None:
        con.executemany(self.sql, self.rows)


class Job(Protocol):
    """Something to be put into the file, inside a transaction."""

    @property
    def size(self) -> int:
        """About how many bytes it holds."""

    def run(self, con: sqlite3.Connection) -> None:
        """Put it there."""


def row(seq: int, reading: Reading, width: int, *, attempt: int, now: float) -> Row:
    """The reading, copied and packed; ArgumentError where a matrix does not have the layout's columns."""
    blobs = tuple(_pack(name, reading.values.get(name), width) for name in QUANTITIES)
    epoch = None if reading.epoch is None else int(reading.epoch)
    head = (int(reading.step), attempt + int(reading.attempt), epoch, float(reading.wall), int(reading.layout))
    return Row(seq, head, numbers(reading.scalars), blobs, width, now)


def _pack(quantity: str, matrix: Matrix | None, width: int) -> bytes | None:
    if matrix is None:
        return None
    if matrix.ndim != 2 or matrix.shape[0] not in (6, 7) or matrix.shape[1] != width:
        raise ArgumentError(f"sums of {quantity!r} have shape {matrix.shape}; their layout needs (6 or 7, {width})")
    return matrix.astype("<f8", copy=False).tobytes()


def numbers(scalars: Mapping[str, float]) -> dict[str, float]:
    """Plain floats of what was logged."""
    return {str(name): float(value) for name, value in scalars.items()}


def meta_rows(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(key), to_json(value)) for key, value in meta.items()]


def tensor_row(number: int, param: Param) -> tuple[Any, ...]:
    axes = [None if given is None else to_json(given) for given in (param.out_axes, param.in_axes)]
    kind = (to_json(param.aliases), param.role, _text(param.layer), to_json(param.shape), _text(param.dtype))
    return (number, _text(param.name), *kind, *axes, int(param.trainable), param.part, _text(param.rule))


def finding_row(finding: Finding) -> tuple[Any, ...]:
    said = (_text(finding.rule), finding.severity, _text(finding.text), _text(finding.remedy))
    step = None if finding.step is None else int(finding.step)
    return (*said, to_json(finding.tensors), finding.basis, _text(finding.source), step, to_json(finding.evidence))


def event_row(wall: float, kind: str, text: str, step: int | None, tensor: str | None) -> tuple[Any, ...]:
    return (wall, _text(kind), _text(text), None if step is None else int(step), tensor and _text(tensor))


def _text(value: str) -> str:
    """Without the lone surrogates that UTF-8 cannot say."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def to_json(value: Any) -> str:
    """JSON as SQLite's own functions accept it: non-finite numbers are "nan", "inf" and "-inf"."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # the rare case pays for itself
        return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
