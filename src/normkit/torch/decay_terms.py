"""What `decay` was asked for, checked: the coefficient, rates to compare with, and what weights are pulled toward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from normkit.asked import number
from normkit.decay import KINDS
from normkit.decay.asked import checked_request
from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.groups import Per, kept_axes
from normkit.torch.aim import Aim, Target
from normkit.torch.decay_pull import length_of

Schedule = Callable[[int], float]
Reference = str | Mapping[str, Any] | None


@dataclass(frozen=True)
class Terms:
    """What stands beside the coefficient and the selection; see `nk.decay`."""

    kind: str
    schedule: Schedule | None = None
    lr_ref: float | None = None
    reference: Reference = None
    length: float | str | None = None
    per: Per = "tensor"


def checked_weight_decay(value: object) -> float:
    """Raises: ArgumentError for what is no finite number of at least 0."""
    return number(value, "weight_decay", advice=", such as 0.01")


def checked_terms(kind: object, schedule: Any, lr_ref: Any, *, reference: Any, length: Any, per: Any) -> Terms:
    """Raises: ArgumentError for an argument that is not what it should be, and for one that the kind has no use for."""
    found = checked_request(kind, lr_ref=lr_ref, reference=reference, length=length, per=per)
    made = schedule if isinstance(schedule, type) else type(schedule)
    if issubclass(made, torch.optim.lr_scheduler.LRScheduler):
        raise ArgumentError(
            f"schedule={made.__name__}: it changes lr, which decay follows by itself; schedule= is a "
            "function from the step to a factor on weight_decay"
        )
    if schedule is not None and not callable(schedule):
        raise ArgumentError(
            f"schedule={in_brief(schedule)}: expected a function from the step to a factor, as in "
            "schedule=lambda step: 1 / (1 + step)"
        )
    rate = None if lr_ref is None else number(lr_ref, "lr_ref", above=0.0, advice=" to compare rates with, such as 0.1")
    if reference is not None and not isinstance(reference, str | Mapping):
        raise ArgumentError(
            f"reference={in_brief(reference)}: expected 'initial' or a dict of arrays by name, such as a state dict"
        )
    return Terms(found.name, schedule, rate, reference, length, per)


def refuse_own_decay(optimizer: torch.optim.Optimizer, aim: Aim) -> None:
    """Raises: ModelError where the optimizer takes a decay of its own from what `aim` reaches."""
    seen = -1
    for target in aim.targets:
        if target.group == seen:
            continue
        seen = target.group
        own = optimizer.param_groups[seen].get("weight_decay") or 0
        if isinstance(own, Tensor) or own > 0:
            said = "a tensor" if isinstance(own, Tensor) else f"{own:g}"
            raise ModelError(
                f"{target.name} would decay twice: {type(optimizer).__name__} has weight_decay={said} itself; set it "
                f"to 0, as in {type(optimizer).__name__}(..., weight_decay=0)"
            )


def sparse(name: str) -> str:
    """Why kind "l2" is refused where a gradient is sparse."""
    return (
        f"{name} has a sparse gradient, and kind='l2' would add the whole weight to it; take another kind, such as "
        "'decoupled', or leave it out with select="
    )


def refuse_sparse(aim: Aim, terms: Terms) -> None:
    """Raises: ModelError for a layer that says that its gradients will be sparse."""
    for target in aim.targets:
        if terms.kind == "l2" and getattr(target.located.module, "sparse", False) is True:
            raise ModelError(sparse(target.name))


def reference_rate(group: Mapping[str, Any], number: int, terms: Terms) -> float | None:
    """lr_ref for one parameter group; None where the kind needs none.

    Raises: ArgumentError where it would be 0, ModelError where the group has no rate.
    """
    if "lr" not in group:
        raise ModelError(f"group {number} of the optimizer has no lr; kind={terms.kind!r} cannot know its step")
    if not KINDS[terms.kind].needs_ref:
        return None
    if terms.lr_ref is not None:
        return terms.lr_ref
    rate = next(float(group[name]) for name in ("max_lr", "initial_lr", "lr") if name in group)
    if not rate > 0:
        raise ArgumentError(
            f"kind={terms.kind!r} needs lr_ref, and lr of group {number} is {rate:g}; give the rate to compare with, "
            "above 0 (once a warmup scheduler is made, lr is 0)"
        )
    return rate


def starts(target: Target, terms: Terms) -> tuple[Tensor | None, Any, Per]:
    """What one tensor is pulled toward: a reference, or a length and the axes kept.

    Raises: ArgumentError for a reference that is absent or of another shape, and for axes that the tensor lacks;
        ModelError where a length of a weight-normed weight is asked for groups that its g does not have.
    """
    own, per = target.tensor.detach(), _axes(target, terms)
    if terms.length is not None:
        length = length_of(own, per) if terms.length == "initial" else torch.tensor(float(terms.length))
        return None, length if length.numel() > 1 else float(length), per
    if terms.reference is None:
        return None, None, per
    if terms.reference == "initial":
        return own.clone(), None, per
    return _given(target, terms.reference).to(own, copy=True), None, per


def _given(target: Target, reference: Any) -> Tensor:
    param = target.located.param
    name = next((name for name in (param.name, *param.aliases) if name in reference), None)
    if name is None:
        raise ArgumentError(
            f"reference={{...}} has nothing for {param.name}; its names are such as "
            f"{', '.join(map(str, list(reference)[:3])) or 'none'}"
        )
    found = torch.as_tensor(reference[name])
    if found.shape != target.tensor.shape:
        raise ArgumentError(
            f"reference={{...}} has shape {tuple(found.shape)} for {param.name} of shape {tuple(target.tensor.shape)}"
        )
    return found.detach()


def _axes(target: Target, terms: Terms) -> Per:
    if terms.length is None or terms.per == "tensor":
        return "tensor"
    whole = target.located if target.weight is None else target.weight
    kept = kept_axes(terms.per, whole.param.shape, whole.param)
    shape, g = whole.param.shape, target.located.param.shape
    if target.weight is not None and any(len(g) <= axis or g[axis] != shape[axis] for axis in kept):
        raise ModelError(
            f"{whole.param.name} is weight-normed, and its lengths g of shape {g} have no groups for "
            f"per={terms.per!r}; take per='tensor', or the axes of g"
        )
    return kept or "tensor"
