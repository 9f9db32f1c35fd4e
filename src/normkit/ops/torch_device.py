"""The same sums on a device: fused reductions with float64 accumulation, one small result, copied without waiting.

Where the device has no float64 (MPS), sums are float32 and right to 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from normkit.types import SUMS

if TYPE_CHECKING:
    from normkit.types import Matrix

CHUNK = 2**24  # elements that are widened to float64 at a time: 128 MB
_WITHOUT_FLOAT64 = ("mps",)
_MAX = SUMS.index("max")


class Parcel:
    """A small matrix on its way to the host; the event tells when it has arrived."""

    def __init__(self, packed: Tensor) -> None:
        self._packed = packed
        self._event: Any = None
        if packed.device.type == "cuda":
            self._packed = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            self._packed.copy_(packed, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(packed.device))

    def ready(self) -> bool:
        return self._event is None or bool(self._event.query())

    def wait(self) -> Matrix:
        if self._event is not None:
            self._event.synchronize()
        matrix: Matrix = self._packed.to("cpu", torch.float64).numpy()
        return matrix


def device_sums(tensors: Sequence[Tensor]) -> Tensor:
    """[6][n] for tensors of one device."""
    wide = _wide(tensors[0])
    filled = [t for t in tensors if t.numel()]
    packed = torch.zeros((6, len(tensors)), dtype=wide, device=tensors[0].device)
    if filled:
        columns = [i for i, t in enumerate(tensors) if t.numel()]
        rows = _rows_of_filled(filled, wide)
        packed = rows if len(filled) == len(tensors) else packed.index_copy(1, _on(columns, packed), rows)
    return packed


def device_grad_sums(grads: Sequence[Tensor], weights: Sequence[Tensor], copies: Sequence[Tensor] = ()) -> Tensor:
    """[7][n]; weights are written to `copies`, which are as many or none."""
    wide = _wide(grads[0])
    if copies:
        torch._foreach_copy_(list(copies), list(weights))
    return torch.cat([device_sums(grads), _dots(grads, weights, wide)[None]])


def device_step_sums(weights: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """[13][n]: the weights', then the steps', of which no more than `CHUNK` entries are in memory at a time."""
    wide = _wide(weights[0])
    steps = [_step_column(w, before, wide) for w, before in zip(weights, old, strict=True)]
    return torch.cat([device_sums(weights), torch.cat(steps, dim=1)])


def _rows_of_filled(tensors: list[Tensor], wide: torch.dtype) -> Tensor:
    floats = [t if t.is_floating_point() and t.element_size() > 1 else t.to(wide) for t in tensors]
    rows = [
        [t.sum(dtype=wide) for t in floats],
        torch._foreach_norm(floats, 1, dtype=wide),
        torch._foreach_norm(floats, 2, dtype=wide),
        torch._foreach_norm(floats, float("inf"), dtype=wide),
        [(t == 0).sum().to(wide) for t in floats],
        [(~t.isfinite()).sum().to(wide) for t in floats],
    ]
    packed = torch.stack([torch.stack(list(row)) for row in rows])
    packed[2].square_()
    return packed


def _dots(a: Sequence[Tensor], b: Sequence[Tensor], wide: torch.dtype) -> Tensor:
    return torch.stack([_dot(x, y, wide) for x, y in zip(a, b, strict=True)])


def _dot(x: Tensor, y: Tensor, wide: torch.dtype) -> Tensor:
    return torch.stack([(p.to(wide) * q.to(wide)).sum() for p, q in _chunks(x, y)]).sum()


def _step_column(w: Tensor, before: Tensor, wide: torch.dtype) -> Tensor:
    """[7][1]: sums of the chunks add, and the largest entry of all is the largest of theirs."""
    parts = torch.cat([_step_sums(now, old, wide) for now, old in _chunks(w, before)], dim=1)
    column = parts.sum(dim=1, keepdim=True)
    column[_MAX] = parts[_MAX].amax()
    return column


def _step_sums(w: Tensor, before: Tensor, wide: torch.dtype) -> Tensor:
    old = before.to(wide)
    step = w.to(wide) - old
    return torch.cat([device_sums([step]), (old * step).sum().reshape(1, 1)])


def _chunks(a: Tensor, b: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """Two tensors of one shape, in stretches short enough to have float64 copies of."""
    if a.numel() <= CHUNK:
        return [(a, b)]
    return zip(torch.split(a.reshape(-1), CHUNK), torch.split(b.reshape(-1), CHUNK), strict=True)


def _wide(t: Tensor) -> torch.dtype:
    return torch.float32 if t.device.type in _WITHOUT_FLOAT64 else torch.float64


def _on(columns: list[int], like: Tensor) -> Tensor:
    return torch.tensor(columns, dtype=torch.long).to(like.device, non_blocking=True)
