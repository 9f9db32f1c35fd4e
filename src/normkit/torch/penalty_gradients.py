"""First derivatives of a penalty's terms, by foreach; no number is read from a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from normkit.torch.fused import WIDE
from normkit.torch.penalty_work import Call, root_of_size, widest_on

# Bytes of weights whose gradients are worked out together where there are several terms: they stay in the cache.
BLOCK = 2**20


def gradients(call: Call, grad: Tensor, wanted: Sequence[int]) -> list[Tensor]:
    """Of grad times the penalty, one per tensor in `wanted`."""
    order: list[int] = []  # another than wanted, where there are several kinds
    found: list[Tensor] = []
    for scales, index in _alike(call, grad, wanted):
        for block in _blocks(call.tensors, index) if len(scales) > 1 else (index,):
            order.extend(block)
            found.extend(_first(call, scales, block))
    if call.alike:
        return found
    by_number = dict(zip(order, found, strict=True))
    return [by_number[i] for i in wanted]


def _alike(call: Call, grad: Tensor, wanted: Sequence[int]) -> Iterator[tuple[dict[str, Tensor], Sequence[int]]]:
    """Tensors of one device and dtype on which the same terms act, and what their gradients are multiplied with.

    The numbers stay on the device. They are worked out in float64 and rounded once to what weights of this dtype are
    multiplied in: there 0.1 must be what an optimizer's own weight_decay=0.1 becomes.
    """
    kinds: dict[tuple[frozenset[str], torch.device, torch.dtype], Any] = {}
    for i in wanted[:1] if call.alike else wanted:
        w = call.tensors[i]
        kinds.setdefault((call.work.terms[i], w.device, w.dtype), []).append(i)
    if call.alike:
        kinds = dict.fromkeys(kinds, wanted)
    for (terms, device, dtype), index in kinds.items():
        wide = grad.to(device, widest_on(device))
        scales = {term: wide * coefficient for term, coefficient in call.coefficients.items() if term in terms}
        if dtype is not torch.float64:  # another dtype beside that of the weights takes twice the time
            scales = {term: scale.float() for term, scale in scales.items()}
        yield scales, index


def _blocks(tensors: Sequence[Tensor], index: Sequence[int]) -> Iterator[list[int]]:
    block: list[int] = []
    held = 0
    for i in index:
        if block and held + tensors[i].nbytes > BLOCK:
            yield block
            block, held = [], 0
        block.append(i)
        held += tensors[i].nbytes
    yield block


def _first(call: Call, scales: dict[str, Tensor], index: Sequence[int]) -> list[Tensor]:
    """First derivatives of the terms in `scales`, added up."""
    weights = call.those(index)
    parts: list[Any] = []
    part: Any
    for term, scale in scales.items():
        if term == "l2":
            parts.append(torch._foreach_mul(weights, scale))
            continue
        if term == "l1":
            part = torch._foreach_sign(weights)
        elif term == "toward":
            beside = [call.work.reference(i, w) for i, w in zip(index, weights, strict=True)]
            part = torch._foreach_sub(weights, beside)
        else:
            part = [_direction(w, call.work.kept[i], call.lengths[i]) for i, w in zip(index, weights, strict=True)]
        torch._foreach_mul_(part, scale)
        parts.append(part)
    for part in parts[1:]:
        torch._foreach_add_(parts[0], part)
    return list(parts[0])


def _direction(w: Tensor, kept: tuple[int, ...], lengths: Tensor) -> Tensor:
    """w / |w| of each group times the root of its size, 0 for a zero group."""
    wide = w if w.dtype in WIDE else w.float()
    lengths = lengths.masked_fill(lengths == 0, 1).to(wide.dtype)
    return wide.div(lengths).mul_(root_of_size(w, kept)).to(w.dtype)
