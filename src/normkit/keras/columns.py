"""The columns of a recording: the variables of a model that stand in it, and their sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from normkit.keras.effective import settled
from normkit.keras.walk import Located
from normkit.ops import ops_of
from normkit.recording.grouped import Grouped
from normkit.recording.packet import Piece

if TYPE_CHECKING:
    from normkit.types import Matrix


class Here(NamedTuple):
    """Matrices that have arrived."""

    matrices: tuple[Matrix, ...]

    def ready(self) -> bool:
        """True: there is nothing to wait for."""
        return True

    def wait(self) -> tuple[Matrix, ...]:
        """The matrices."""
        return self.matrices


class Columns:
    """Variables that are measured together. Their state must be attached to the model whenever one is asked for it.

    No value is kept: on JAX the next step deletes it.
    """

    def __init__(self, located: Sequence[Located], groups: Sequence[Grouped] = ()) -> None:
        self._variables = [item.variable for item in located]
        self._groups = list(groups)
        self._index = np.arange(len(located))
        self._cache: Any = None

    def values(self) -> list[Any]:
        """The tensors now, of the backend's own type."""
        return [settled(variable) for variable in self._variables]

    def measure(self) -> list[Piece]:
        """The weights' sums now, or on their way."""
        values = self.values()
        if not values:
            return []
        ops = ops_of(values[0])
        if self._cache is None:
            self._cache = getattr(ops, "Cache", lambda: None)()
        return [
            Piece(ops.sums(values, cache=self._cache), self._index, ("weight",)),
            *(self._of_group(ops, values[each.place], each) for each in self._groups),
        ]

    def _of_group(self, ops: Any, value: Any, group: Grouped) -> Piece:
        rows = ops.sums_of_rows(ops.as_rows(value, group.axes))
        return Piece(Here((rows,)), group.columns, ("weight",))
