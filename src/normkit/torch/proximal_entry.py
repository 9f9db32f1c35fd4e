"""`proximal`: the step that makes exact zeros, after each step of an optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per
from normkit.penalize import group_threshold
from normkit.penalize.coefficients import coefficients
from normkit.select import Explanation
from normkit.torch.aim import Aim, Target
from normkit.torch.arguments import Models
from normkit.torch.attach import Attachment
from normkit.torch.fused import WIDE
from normkit.torch.kept import groups_within
from normkit.torch.shards import cut_axes, dealt_out, is_sharded, whole


def proximal(
    optimizer: Any,
    *,
    l1: float | None = None,
    group: float | None = None,
    select: Any = None,
    per: Per = "out",
    model: Models | None = None,
) -> Proximal:
    """After each step of `optimizer` move weights toward 0, and to exactly 0 where they would cross it; gives a handle.

        l1       w <- sign(w) max(|w| - lr l1, 0)
        group    w_g <- w_g max(0, 1 - lr group sqrt(n) / |w_g|_2)          n entries in each group

    This takes the place of `penalty(l1=)` and `penalty(group=)` in the loss, whose gradient jumps over 0 for ever. With
    both, l1 comes first, which is the step of their sum.

    Units: per optimizer step, times the lr that the parameter's group had in it; for SGD the proximal gradient step. An
    optimizer with a preconditioner (Adam) makes the same step, which its own scale does not enter.

    select  which weights (docs: select); default: kernels. For a weight-normed weight `group` acts on its g, for which
            the groups must be those of g, and l1 is refused
    per     the groups of `group`: "out", "in", "tensor", or the kept axes
    model   as for `constrain`

    Left alone: parameters without gradient in a step, frozen ones, steps that a GradScaler skips.
    Raises, with all as it was: ArgumentError for no coefficient or one that is none, a rule that matches nothing;
    ModelError for an optimizer of another model or without a lr, and for a weight-normed weight as above.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, -0.01]]))
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.25)
    >>> handle = proximal(optimizer, l1=1.0, model=layer)
    >>> layer(torch.zeros(1, 2)).sum().backward()
    >>> optimizer.step()
    >>> layer.weight.tolist()
    [[0.25, 0.0]]
    """
    if isinstance(optimizer, nn.Module):
        raise ArgumentError(
            f"proximal({type(optimizer).__name__}): a module; give the optimizer, as proximal(optimizer, l1=1e-4, "
            "model=model)"
        )
    found = {"l1": 0.0, "group": 0.0} | coefficients({"l1": l1, "group": group}, "proximal")
    handle = Proximal(optimizer, found, select, per, model)
    handle.attach()
    return handle


@dataclass(frozen=True)
class _Shrunk:
    """One tensor that is moved toward 0, and its groups; `entries` is more than 1 where it holds lengths of so many."""

    target: Target
    kept: tuple[int, ...]
    entries: int = 1


class Proximal(Attachment):
    """A proximal step at work; made by `nk.proximal`. `remove()` takes it off, `explain()` is the table."""

    VERB = "proximal"

    def __init__(self, optimizer: Any, coefficients: dict[str, float], rule: Any, per: Per, model: Any) -> None:
        super().__init__(optimizer, rule, model)
        self._coefficients, self._per = coefficients, per
        if not self.aim.targets:
            raise ModelError(
                f"proximal: {type(self.optimizer).__name__} holds none of the parameters chosen; print "
                "nk.explain(model, select) beside the optimizer's groups"
            )
        self.found(self.aim)

    def explain(self) -> Explanation:
        """Which parameters are moved, and by how much in the next step."""
        self.refresh()
        rates = self.rates()

        def told(target: Target) -> str:
            parts = [
                f"{term} {value:g}, by {float(rates[target.group]) * value:.3g} in the next step"
                for term, value in self._coefficients.items()
                if value
            ]
            return "; ".join(parts)

        return self.aim.explain(told)

    def __repr__(self) -> str:
        state = "" if self.attached else ", removed"
        count = "1 parameter" if len(self._shrunk) == 1 else f"{len(self._shrunk)} parameters"
        said = ", ".join(f"{term}={value:g}" for term, value in self._coefficients.items() if value)
        return f"Proximal({said}: {count}{state})"

    def found(self, now: Aim) -> None:
        for target in now.targets:
            if self.optimizer.param_groups[target.group].get("lr") is None:
                raise ModelError(
                    f"proximal: group {target.group} of {type(self.optimizer).__name__} has no lr, and the step is "
                    "times lr"
                )
        self._shrunk = [self._taken_in(target) for target in now.targets]

    def _taken_in(self, target: Target) -> _Shrunk:
        if target.weight is None:
            kept = groups_within(target, self._per, self.VERB) if self._coefficients["group"] else ()
            return _Shrunk(target, kept)
        if self._coefficients["l1"]:
            raise ModelError(
                f"{target.weight.param.name} is weight-normed, and no entry of it can be made 0 through g and v: use "
                "group= for it, nk.penalty(l1=), or nk.remove_weight_norm first"
            )
        groups_within(target, self._per, self.VERB)
        entries = prod(target.weight.param.shape) // max(target.tensor.numel(), 1)
        return _Shrunk(target, tuple(range(target.tensor.ndim)), entries)

    @torch.no_grad()
    def after(self) -> None:
        alive = self.alive()
        if isinstance(alive, float) and not alive:
            return
        rates = [rate if isinstance(alive, float) else rate * alive for rate in self.rates()]
        graded = [each for each in self._shrunk if each.target.tensor.grad is not None]
        for rate, members in _by_rate(graded, rates):
            if self._coefficients["l1"]:
                soft_threshold_([_here(each.target.tensor) for each in members], rate * self._coefficients["l1"])
            if self._coefficients["group"]:
                for each in members:
                    _shorten(each, rate * self._coefficients["group"])


def _by_rate(shrunk: Sequence[_Shrunk], rates: Sequence[Any]) -> Iterator[tuple[Any, list[_Shrunk]]]:
    for number, rate in enumerate(rates):
        members = [each for each in shrunk if each.target.group == number]
        if members:
            yield rate, members


def _here(w: Tensor) -> Tensor:
    """The memory that this process has of it."""
    return w.detach().to_local() if is_sharded(w) else w.detach()  # type: ignore[attr-defined]


def soft_threshold_(weights: list[Tensor], threshold: Any) -> None:
    """The room's `soft_threshold`, in place, many tensors together; the threshold may be a number on the device."""
    wide = [w if w.dtype in WIDE else w.float() for w in weights]
    sizes = torch._foreach_abs(wide)
    if isinstance(threshold, Tensor):
        torch._foreach_add_(sizes, -threshold)
    else:
        torch._foreach_sub_(sizes, threshold)
    torch._foreach_clamp_min_(sizes, 0.0)
    torch._foreach_mul_(sizes, torch._foreach_sign(wide))
    torch._foreach_add_(sizes, 0.0)  # of the two zeros the one without a sign
    torch._foreach_copy_(weights, sizes)


def _shorten(each: _Shrunk, threshold: Any) -> None:
    w = each.target.tensor.detach()
    if is_sharded(w) and not cut_axes(w) <= set(each.kept):
        _here(w).copy_(_here(dealt_out(group_threshold(whole(w), threshold, each.kept), w)))
    else:
        here = _here(w)
        here.copy_(group_threshold(here, threshold, each.kept, entries=each.entries))
