"""A number of a device, fetched when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Fetched:
    """One logged number. TensorFlow does not tell when a device is done: by the second question it is."""

    def __init__(self, number: Any) -> None:
        self._number = number
        self._asked = "CPU" in number.device

    def ready(self) -> bool:
        """Whether `wait` would return at once, as far as can be known."""
        asked, self._asked = self._asked, True
        return asked

    def wait(self) -> tuple[NDArray[np.float64], ...]:
        """The number as one array."""
        return (np.asarray(self._number, np.float64),)
