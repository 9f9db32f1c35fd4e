"""The slots of a ring, as each backend keeps them: in variables, in the optimizer's state, in a list.

`plan` says which steps are wanted, one per slot, and which step a slot holds: both are known inside the compiled step,
so that the host decides for a whole epoch and is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

import keras
import numpy as np

from normkit.errors import ModelError
from normkit.keras.ring_hooks import Watched
from normkit.recording.packet import ROWS

if TYPE_CHECKING:
    from normkit.types import Matrix

    Found = list[tuple[int, dict[str, Matrix]]]

NEVER = np.iinfo(np.int32).max  # as the step that a slot waits for
ANY = -1
EMPTY = -1  # as the step that a slot holds

_FILES = {name: f"normkit.keras.ring_{name}" for name in ("tensorflow", "jax", "torch")}


class Slots(Protocol):
    """Where the sums of some steps lie; the last slot is for the newest step, where that is wanted."""

    variables: Sequence[Any]  # of the optimizer's
    around: Any  # what makes of a compiled training step one that is measured from outside; None where it is not

    apart: Callable[[list[Any]], list[Any]] | None  # what makes gradients to be read of those that train

    def __init__(self, watched: Watched, number: int) -> None: ...

    def want(self, steps: Sequence[int], *, newest: bool) -> None:
        """Empty the slots; keep these steps from now on."""

    def take(self) -> Found:
        """What was kept, and empty the slots."""

    def before(self) -> None:
        """The optimizer begins on a batch."""

    def gradients(self, gradients: Mapping[Any, Any]) -> None:
        """These gradients are used now, by the key of their variable."""

    def after(self) -> None:
        """The optimizer is done with the batch; the weights are final."""


def slots_of_backend() -> type[Slots]:
    """The slots for the Keras backend in use."""
    backend = keras.backend.backend()
    if backend not in _FILES:
        raise ModelError(
            f"gradients and updates are measured on {', '.join(_FILES)}, and the Keras backend is {backend}: "
            'record what=("weight",) only'
        )
    return cast("type[Slots]", import_module(_FILES[backend]).RingSlots)


def planned(steps: Sequence[int], number: int, *, newest: bool) -> Any:
    """[2][slots] int32: the steps wanted, and the steps held: none yet."""
    plan = np.full((2, number), NEVER, np.int32)
    plan[0, : len(steps)] = steps
    plan[0, -1] = ANY if newest else NEVER
    plan[1] = EMPTY
    return plan


def none_of(watched: Watched, name: str) -> Matrix:
    """A matrix of a quantity, all NaN."""
    return np.full((ROWS[name], watched.counts(name)), np.nan)
