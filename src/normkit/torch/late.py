"""Small results of a device, fetched without waiting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from normkit.ops.torch_device import Parcel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Fetched:
    """A few numbers on their way from a device."""

    def __init__(self, numbers: torch.Tensor) -> None:
        # A tensor on the CPU may be written to before it is read here; a device's copy is made in the stream's order.
        self._parcel = Parcel(numbers.detach().clone())

    def ready(self) -> bool:
        """True when `wait` would not wait."""
        return self._parcel.ready()

    def wait(self) -> tuple[NDArray[np.float64], ...]:
        """The numbers as one array."""
        return (self._parcel.wait(),)


def path_of_sums(tensors: Iterable[torch.Tensor]) -> str:
    """How the sums of these tensors are taken, for the file's metadata."""
    kinds = sorted({tensor.device.type for tensor in tensors})
    words = {"cpu": "cpu: compiled kernel, float64", "mps": "mps: torch, float32"}
    return "; ".join(words.get(kind, f"{kind}: torch, float64 accumulation") for kind in kinds)
