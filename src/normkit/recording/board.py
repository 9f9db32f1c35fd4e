"""Which curves a run writes for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from normkit.errors import ArgumentError, in_brief
from normkit.norms import NORMS, canonical
from normkit.select import select as select_params
from normkit.types import Param

MOST = 200


@dataclass(frozen=True)
class TensorBoard:
    """Which curves a run writes, and where: `tensorboard="logs"` is short for `tensorboard=TensorBoard("logs")`.

    folder  where the file of events goes
    norms   of each tensor: one name or several, such as ("l1", "l2")
    select  which of the recorded tensors; default: all
    most    of these so many have curves, those with the most entries; None: all

    Raises: ArgumentError for what makes no sense.

    >>> TensorBoard("logs", norms="l1")
    TensorBoard(folder='logs', norms=('l1',), select=None, most=200)
    """

    folder: str | Path
    norms: str | Sequence[str] = ("l2",)
    select: Any = None
    most: int | None = MOST

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike) or not os.fspath(self.folder):
            raise ArgumentError(f"tensorboard={in_brief(self.folder)}: expected the path of a folder, such as 'logs'")
        if "\0" in str(self.folder):
            raise ArgumentError(f"tensorboard={str(self.folder)!r}: a path holds no zero byte; give another one")
        if os.path.isfile(self.folder):
            raise ArgumentError(
                f"tensorboard={str(self.folder)!r} is a file; give the name of a folder, such as 'logs'"
            )
        object.__setattr__(self, "norms", _names(self.norms))
        if self.most is not None:
            object.__setattr__(self, "most", _count(self.most))

    @classmethod
    def of(cls, given: Any) -> TensorBoard | None:
        """What `tensorboard=` means."""
        return given if given is None or isinstance(given, cls) else cls(given)

    def chosen(self, params: Sequence[Param]) -> set[str]:
        """The names of the tensors that are selected. Raises: ArgumentError where a rule matches nothing."""
        return {param.name for param in select_params(params, self.select, default="all").chosen}


def _names(given: Any) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) or not isinstance(given, Sequence) else tuple(given)
    known = dict.fromkeys(canonical(name) for name in names)
    if not known or not known.keys() <= NORMS.keys():
        raise ArgumentError(f"TensorBoard(norms={in_brief(given)}): expected some of {', '.join(NORMS)}")
    return tuple(known)


def _count(given: Any) -> int:
    try:
        number = 0 if isinstance(given, bool) else index(given)
    except TypeError:
        number = 0
    if number < 1:
        raise ArgumentError(f"TensorBoard(most={in_brief(given)}): expected a whole number of at least 1, or None")
    return number
