"""The sum of a penalty's terms over many tensors, as one node of the graph.

What records or transforms operations instead of running them (torch.compile, torch.func, fake tensors) gets the rooms'
formulas, and so does a gradient that is differentiated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from normkit.torch.fused import FLOATS, PLAIN, runs
from normkit.torch.penalty_gradients import gradients
from normkit.torch.penalty_values import values
from normkit.torch.penalty_work import Call, Coefficients, Work


def total(work: Work, coefficients: Coefficients, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The penalty, and the value of each term in the order of the coefficients; derivatives reach the first only."""
    call = Call(work, coefficients, tensors)
    if runs() and _plain(call):
        found: tuple[Tensor, Tensor] = _Total.apply(call, *tensors)  # type: ignore[no-untyped-call]
        return found
    return by_rooms(call)


def _plain(call: Call) -> bool:
    kinds = set(map(type, call.tensors))
    return kinds.issubset(PLAIN) and call.dtypes.issubset(FLOATS) and "meta" not in {at.type for at in call.devices}


def by_rooms(call: Call) -> tuple[Tensor, Tensor]:
    """The same out of the rooms' formulas, whose derivatives are those of ordinary operations."""
    work, tensors = call.work, call.tensors
    at, kind = tensors[0].device, _widest(call)
    found = []
    for term, coefficient in call.coefficients.items():
        chosen = work.of(term, range(len(tensors)))
        parts = [work.value(term, i, tensors[i]).to(at, kind) for i in chosen]
        found.append(coefficient * torch.stack(parts).sum() if parts else torch.zeros((), device=at, dtype=kind))
    stacked = torch.stack(found)
    return stacked.sum(), stacked.detach()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.work, ctx.coefficients = call.work, call.coefficients
        ctx.save_for_backward(*tensors)
        each, kind = values(call), _widest(call)
        ctx.lengths = call.lengths
        whole, terms = each.sum().to(kind), each.to(kind)
        ctx.mark_non_differentiable(terms)
        return whole, terms

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        work, coefficients, tensors = ctx.work, ctx.coefficients, ctx.saved_tensors
        call = Call(work, coefficients, tensors, ctx.lengths)
        asked = ctx.needs_input_grad[1:]
        wanted = range(len(tensors)) if all(asked) else [i for i, one in enumerate(asked) if one]
        if torch.is_grad_enabled():
            value, _ = by_rooms(call)
            found = torch.autograd.grad(value, [tensors[i] for i in wanted], grads[0], create_graph=True)
        elif _several(grads[0]):
            one = torch.ones((), dtype=grads[0].dtype, device=grads[0].device)
            units = gradients(call, one, wanted)
            found = tuple(unit * grads[0].to(unit.dtype) for unit in units)
        else:
            found = tuple(gradients(call, grads[0], wanted))
        if len(wanted) == len(tensors):
            return (None, *found)
        given: list[Tensor | None] = [None] * len(tensors)
        for i, gradient in zip(wanted, found, strict=True):
            given[i] = gradient
        return (None, *given)


def _several(grad: Tensor) -> bool:
    """Does it stand for many gradients at once, as under vmap and `is_grads_batched`?"""
    return torch._C._are_functorch_transforms_active() or "Batched" in str(torch._C._dispatch_keys(grad))


def _widest(call: Call) -> torch.dtype:
    return reduce(torch.promote_types, call.dtypes, torch.float32)
