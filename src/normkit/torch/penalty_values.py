"""The values of a penalty's terms, in float64: by the compiled kernel on the CPU, by foreach on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normkit.ops import torch as ops
from normkit.torch.penalty_work import Call, lengths_of, root_of_size, widest_on
from normkit.torch.shards import Groups, added_up
from normkit.types import SUMS

_SQ = SUMS.index("sq")
_BY_SUMS = {"l1": (SUMS.index("abs"), 1.0), "l2": (_SQ, 0.5)}  # the row of the sums, and a factor


def values(call: Call) -> Tensor:
    """The value of each term, times its coefficient, over all processes; on the first tensor's device.

    The lengths of groups stay in `call`.
    """
    work, at, parts = call.work, call.tensors[0].device, []
    for (device, groups), index in _places(call).items():
        caches = work.caches.setdefault((device, groups), (ops.Cache(), ops.Cache()))
        by = _by_kernel if device.type == "cpu" else _by_foreach
        part = by(call, index, caches)
        parts.append(added_up(part, groups).to(at, non_blocking=True))
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


def _places(call: Call) -> dict[tuple[torch.device, Groups], Sequence[int]]:
    """The tensors' numbers by device and by the processes among which they are dealt out."""
    work, tensors = call.work, call.tensors
    if len(call.devices) == 1 and not work.dealt_out:
        return {(tensors[0].device, ()): range(len(tensors))}
    found: dict[tuple[torch.device, Groups], Any] = {}
    for i, (w, groups) in enumerate(zip(tensors, work.groups, strict=True)):
        found.setdefault((w.device, groups), []).append(i)
    return found


def _by_kernel(call: Call, index: Sequence[int], caches: tuple[Any, Any]) -> Tensor:
    """In one pass over the memory of all; one more where a reference is to be read along."""
    work, coefficients, tensors = call.work, call.coefficients, call.tensors
    sums: dict[str, Any] = dict.fromkeys(coefficients, 0.0)
    if plain := work.of_any(_BY_SUMS, index):
        matrix = ops.sums(call.those(plain), caches[0]).wait()[0]
        for term, (row, factor) in _BY_SUMS.items():
            everywhere = work.alike is not None and term in work.alike
            acts = slice(None) if everywhere else [term in work.terms[i] for i in plain]
            sums[term] = factor * matrix[row, acts].sum()
    if apart := work.of("toward", index):
        beside = [work.reference(i, tensors[i]) for i in apart]
        moved = ops.step_sums(call.those(apart), beside, caches[1]).wait()[1]
        sums["toward"] = 0.5 * moved[_SQ].sum()
    values = torch.tensor([coefficient * sums[term] for term, coefficient in coefficients.items()], dtype=torch.float64)
    if grouped := work.of("group", index):
        groups = torch.stack([_group(call, i).double() for i in grouped]).sum()
        values[list(coefficients).index("group")] = coefficients["group"] * groups
    return values


def _by_foreach(call: Call, index: Sequence[int], caches: object) -> Tensor:
    """On a device, where they are; nothing waits for it."""
    work, coefficients, tensors = call.work, call.coefficients, call.tensors
    chosen = {term: work.of(term, index) for term in coefficients}
    wide, at = widest_on(tensors[index[0]].device), tensors[index[0]].device
    lists: dict[str, Any] = {term: [tensors[i].detach() for i in found] for term, found in chosen.items()}
    if chosen.get("toward"):
        lists["toward"] = torch._foreach_sub(lists["toward"], [work.reference(i, tensors[i]) for i in chosen["toward"]])
    values = []
    for term, found in chosen.items():
        if not found:
            values.append(torch.zeros((), dtype=wide, device=at))
        elif term == "group":
            parts = [_group(call, i).to(wide) for i in found]
            values.append(coefficients[term] * torch.stack(parts).sum())
        else:
            totals = torch.stack(torch._foreach_norm(lists[term], 1 if term == "l1" else 2, dtype=wide))
            values.append(coefficients[term] * (totals.sum() if term == "l1" else 0.5 * totals.square().sum()))
    return torch.stack(values)


def _group(call: Call, i: int) -> Tensor:
    w, kept = call.tensors[i], call.work.kept[i]
    call.lengths[i] = lengths_of(w, kept)
    return root_of_size(w, kept) * call.lengths[i].sum()
