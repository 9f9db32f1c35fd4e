"""Small results of a device, fetched without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Fetched:
    """An array on its way from a device; with `rows` or `columns` only these of it."""

    def __init__(self, array: Any) -> None:
        self._array = array
        if not array.is_deleted():
            array.copy_to_host_async()

    def ready(self) -> bool:
        """True when `wait` would not wait."""
        return bool(self._array.is_deleted() or self._array.is_ready())

    def wait(self) -> tuple[NDArray[np.float64], ...]:
        """The numbers. Raises: RuntimeError of jax's where the array was donated meanwhile."""
        return (np.asarray(jax.device_get(self._array), dtype=np.float64),)


class Part:
    """Some columns of what was fetched, of one step of a stack of them."""

    def __init__(self, whole: Fetched, columns: Sequence[int] | None, step: int | None = None) -> None:
        self._whole, self._columns, self._step = whole, columns, step

    def ready(self) -> bool:
        """True when `wait` would not wait."""
        return self._whole.ready()

    def wait(self) -> tuple[NDArray[np.float64], ...]:
        """The matrix."""
        (matrix,) = self._whole.wait()
        matrix = matrix if self._step is None else matrix[self._step]
        return (matrix if self._columns is None else matrix[:, list(self._columns)],)
