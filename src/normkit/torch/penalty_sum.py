"""The sum of a penalty's terms over many tensors, as one node of the graph.

What records or transforms operations instead of running them (torch.compile, torch.func, fake tensors) gets the rooms'
formulas, and so does a gradient that is differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from normkit.torch.fused import FLOATS, PLAIN, runs
from normkit.torch.penalty_gradients import gradients
from normkit.torch.penalty_values import values
from normkit.torch.penalty_work import DTYPE, Call, Coefficients, Work

META = attrgetter("is_meta")


def total(work: Work, coefficients: Coefficients, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The penalty, and the value of each term in the order of the coefficients; derivatives reach the first only."""
    if runs() and _plain(tensors):
        found: tuple[Tensor, Tensor] = _Total.apply(work, coefficients, *tensors)  # type: ignore[no-untyped-call]
        return found
    return by_rooms(work, coefficients, tensors)


def _plain(tensors: Sequence[Tensor]) -> bool:
    kinds, dtypes = set(map(type, tensors)), set(map(DTYPE, tensors))
    return kinds.issubset(PLAIN) and dtypes.issubset(FLOATS) and not any(map(META, tensors))


def by_rooms(work: Work, coefficients: Coefficients, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The same out of the rooms' formulas, whose derivatives are those of ordinary operations."""
    at, kind = tensors[0].device, _widest(tensors)
    found = []
    for term, coefficient in coefficients.items():
        chosen = work.of(term, range(len(tensors)))
        parts = [work.value(term, i, tensors[i]).to(at, kind) for i in chosen]
        found.append(coefficient * torch.stack(parts).sum() if parts else torch.zeros((), device=at, dtype=kind))
    stacked = torch.stack(found)
    return stacked.sum(), stacked.detach()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: Work, coefficients: Coefficients, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.work, ctx.coefficients = work, coefficients
        ctx.save_for_backward(*tensors)
        call = Call(work, coefficients, tensors)
        each, kind = values(call), _widest(tensors)
        ctx.lengths = call.lengths
        whole, terms = each.sum().to(kind), each.to(kind)
        ctx.mark_non_differentiable(terms)
        return whole, terms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        work, coefficients, tensors = ctx.work, ctx.coefficients, ctx.saved_tensors
        call = Call(work, coefficients, tensors, ctx.lengths)
        wanted = [i for i, asked in enumerate(ctx.needs_input_grad[2:]) if asked]
        if torch.is_grad_enabled():
            value, _ = by_rooms(work, coefficients, tensors)
            found = torch.autograd.grad(value, [tensors[i] for i in wanted], grads[0], create_graph=True)
        elif _several(grads[0]):
            one = torch.ones((), dtype=grads[0].dtype, device=grads[0].device)
            units = gradients(call, one, wanted)
            found = tuple(unit * grads[0].to(unit.dtype) for unit in units)
        else:
            found = tuple(gradients(call, grads[0], wanted))
        given: list[Tensor | None] = [None] * len(tensors)
        for i, gradient in zip(wanted, found, strict=True):
            given[i] = gradient
        return (None, None, *given)


def _several(grad: Tensor) -> bool:
    """Does it stand for many gradients at once, as under vmap and `is_grads_batched`?"""
    return torch._C._are_functorch_transforms_active() or "Batched" in str(torch._C._dispatch_keys(grad))


def _widest(tensors: Sequence[Tensor]) -> torch.dtype:
    return reduce(torch.promote_types, {w.dtype for w in tensors}, torch.float32)
