"""The small tables of a recording, decoded and checked: what the records are, not what they say."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from normkit.readers.database import DamageError
from normkit.types import ROLES, Finding, Param, Part, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
SEVERITIES = ("error", "warning", "note")
BASES = ("theorem", "model", "heuristic")
PARTS = ("whole", "g", "v", "effective")


@dataclass(frozen=True)
class Layout:
    """The columns of some records: `params` of those that hold whole tensors, and their `positions` among `width`.

    `groups` says where the columns of a tensor's groups stand: (name, per) -> their positions, in order.
    """

    params: tuple[Param, ...]
    positions: NDArray[np.int64]
    width: int
    groups: Mapping[tuple[str, str], NDArray[np.int64]] = field(default_factory=dict)

    @cached_property
    def entries(self) -> list[int]:
        return [param.count for param in self.params]

    @cached_property
    def counts(self) -> NDArray[np.float64]:
        return np.array(self.entries, dtype=np.float64)


EMPTY = Layout((), np.empty(0, np.int64), 0)


@dataclass(frozen=True)
class Index:
    """What one look at the file says: the records that count, ascending by step, and the tensors of all layouts."""

    meta: dict[str, Any]
    params: tuple[Param, ...]  # one per column: the newest description of each name
    layouts: dict[int, Layout]
    seqs: NDArray[np.int64]
    steps: NDArray[np.int64]
    epochs: NDArray[np.float64]
    walls: NDArray[np.float64]
    layout_numbers: NDArray[np.int64]
    begun: dict[int, int]  # attempt -> its first step

    @cached_property
    def columns(self) -> dict[str, int]:
        return {param.name: column for column, param in enumerate(self.params)}

    @property
    def used_layouts(self) -> list[tuple[int, Layout]]:
        numbers = np.unique(self.layout_numbers).tolist()
        return [(number, self.layouts.get(number, EMPTY)) for number in numbers]


def read(con: sqlite3.Connection) -> Index:
    """The index of an open recording; DamageError where a table does not make sense."""
    meta = {str(key): _decoded("meta", value) for key, value in con.execute("SELECT key, value FROM meta")}
    layouts = _layouts(con)
    newest = {param.name: param for layout in layouts.values() for param in layout.params}
    rows = con.execute("SELECT seq, step, attempt, epoch, wall, layout FROM record ORDER BY seq").fetchall()
    columns = tuple(zip(*rows, strict=True)) or ((),) * 6
    seqs, steps, attempts, layout_numbers = (_numbers(columns[i], np.int64) for i in (0, 1, 2, 5))
    epochs, walls = (_numbers(columns[i], np.float64) for i in (3, 4))
    valid = _that_count(steps, attempts)
    chosen = (seqs[valid], steps[valid], epochs[valid], walls[valid], layout_numbers[valid])
    begun = {attempt: int(steps[attempts == attempt].min()) for attempt in np.unique(attempts).tolist()}
    return Index(meta, tuple(newest.values()), layouts, *chosen, begun)


def scalars(con: sqlite3.Connection, seqs: NDArray[np.int64]) -> list[dict[str, float]]:
    """What was logged with each of the records `seqs`."""
    texts = dict(con.execute("SELECT seq, scalars FROM record").fetchall())
    return [_scalars(seq, texts.get(seq, "{}")) for seq in seqs.tolist()]


def _scalars(seq: int, text: Any) -> dict[str, float]:
    try:
        return {str(name): float(value) for name, value in _decoded("scalars", text).items()}  # "nan" and "inf" too
    except (AttributeError, TypeError, ValueError):
        raise DamageError(f"the scalars of record {seq} are {str(text)[:40]!r}") from None


def findings(con: sqlite3.Connection) -> list[Finding]:
    """The stored findings, in order."""
    query = "SELECT rule, severity, text, remedy, tensors, basis, source, step, evidence FROM finding ORDER BY id"
    return [_finding(row) for row in con.execute(query)]


def _finding(row: Sequence[Any]) -> Finding:
    rule, severity, text, remedy, tensors, basis, source, step, evidence = row
    if severity not in SEVERITIES or basis not in BASES:
        raise DamageError(f"a finding has the severity {severity!r} and the basis {basis!r}")
    known = _decoded("finding", evidence)
    return Finding(rule, severity, text, remedy, _tuple(tensors, str), basis, source, step, dict(known))


def _that_count(steps: NDArray[np.int64], attempts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the records to read, ascending by step: a later attempt replaces all from its first step on,
    and of several records of one step the last one counts."""
    kept = np.ones(len(steps), dtype=bool)
    for attempt in np.unique(attempts)[1:]:
        kept &= (attempts >= attempt) | (steps < steps[attempts == attempt].min())
    positions = np.flatnonzero(kept)[::-1]
    return positions[np.unique(steps[positions], return_index=True)[1]]


def _layouts(con: sqlite3.Connection) -> dict[int, Layout]:
    tensors = {row[0]: _param(row) for row in con.execute("SELECT * FROM tensor")}
    found: dict[int, list[tuple[Any, ...]]] = {}
    per = "per" if any(row[1] == "per" for row in con.execute("PRAGMA table_info(layout)")) else "NULL"
    query = f'SELECT layout, position, tensor, "group", {per} FROM layout ORDER BY layout, position'
    for number, *column in con.execute(query):
        found.setdefault(number, []).append(tuple(column))
    return {number: _layout(number, columns, tensors) for number, columns in found.items()}


def _layout(number: int, columns: Sequence[tuple[Any, ...]], tensors: dict[Any, Param]) -> Layout:
    for expected, (position, tensor, *_) in enumerate(columns):
        if position != expected or tensor not in tensors:
            raise DamageError(
                f"layout {number} is wrong at column {expected}: position {position!r}, tensor {tensor!r}"
            )
    whole = [(position, tensors[tensor]) for position, tensor, group, _ in columns if group is None]
    positions = np.array([position for position, _ in whole], dtype=np.int64)
    groups: dict[tuple[str, str], list[int]] = {}
    for position, tensor, group, per in columns:
        if group is not None:
            groups.setdefault((tensors[tensor].name, str(per)), []).append(position)
    placed = {key: np.array(places, dtype=np.int64) for key, places in groups.items()}
    return Layout(tuple(param for _, param in whole), positions, len(columns), placed)


def _param(row: Sequence[Any]) -> Param:
    number, name, aliases, role, layer, shape, dtype, out_axes, in_axes, trainable, part, rule = row
    if role not in ROLES or part not in PARTS:
        raise DamageError(f"tensor {number} has the role {role!r} and the part {part!r}")
    param = Param(
        name=str(name),
        shape=_tuple(shape, _size),
        dtype=str(dtype),
        role=cast("Role", role),
        aliases=_tuple(aliases, str),
        layer=str(layer),
        out_axes=None if out_axes is None else _tuple(out_axes, _size),
        in_axes=None if in_axes is None else _tuple(in_axes, _size),
        trainable=bool(trainable),
        part=cast("Part", part),
        rule=str(rule),
    )
    if param.count >= 1 << 63:
        raise DamageError(f"tensor {number} has more than 2^63 entries")
    return param


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise DamageError(f"a size or axis is {value!r}")
    return value


def _tuple(text: Any, item: Callable[[Any], T]) -> tuple[T, ...]:
    values = _decoded("list", text)
    if not isinstance(values, list):
        raise DamageError(f"a list is stored as {text!r}")
    return tuple(item(value) for value in values)


def _decoded(what: str, text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise DamageError(f"a {what} value is not JSON: {str(text)[:40]!r}") from None


def _numbers(values: Sequence[Any], dtype: type) -> NDArray[Any]:
    try:
        return np.array(values, dtype=dtype)
    except (TypeError, ValueError, OverflowError):
        raise DamageError(f"a record's number is not one: expected {dtype.__name__}") from None
