"""Proximal steps after an optax transformation. Imports optax, so it is imported when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from normkit.errors import ModelError
from normkit.groups import Per
from normkit.jax.coefficients import Rate, injected, rate
from normkit.jax.targets import Path, Target
from normkit.jax.transform import Rule, extended, if_made, leading_to, step_made
from normkit.penalize import group_threshold, soft_threshold
from normkit.penalize.coefficients import coefficients

SAME = "give the number or the schedule that the optimizer has: a threshold is lr times the coefficient"


class ProximalState(NamedTuple):
    """A pytree beside the optimizer's own state, saved with it; count: steps made, for the schedule."""

    inner_state: Any
    count: Any


def proximal(
    optimizer: Any,
    *,
    l1: float | None = None,
    group: float | None = None,
    learning_rate: Any = None,
    select: Any = None,
    per: Per = "out",
) -> Any:
    """An optax transformation that does what `optimizer` does, and then the proximal step of l1 or the group lasso.

        l1=c       w <- sign(w) max(|w| - lr c, 0)                     after the update: zeros are exact
        group=c    w_g <- w_g max(0, 1 - lr c sqrt(n) / |w_g|)         n entries in each group g; whole groups go to 0

        optimizer = nk.proximal(optax.sgd(0.1), l1=0.02, learning_rate=0.1)

    In place of the terms `l1` and `group` of `nk.penalty`, not beside them. Both together: l1 first.

    learning_rate  lr of the optimizer: the same number or schedule (step -> number, from 0)
    select  which weights (docs: select); default: kernels
    per     what is a group: "out", "in", "tensor" or kept axes

    Units: a threshold is lr times the coefficient, per step. It is exact for optimizers whose step is lr times the
    gradient, SGD with or without momentum; an adaptive one, such as Adam, has other rates for each entry, and this
    threshold all the same. Of a weight in two parts (`nk.weight_norm`), `group` changes g; `l1` is refused.

    What comes back has `init`, `update(updates, state, params)`, `explain(params)` and `project` (of `nk.constrain`).
    Raises: ArgumentError for what is no transformation, coefficients that are absent, negative or no numbers, a rate
    that is absent; in `init` for a rule that reaches nothing, unknown axes; in `update` without params. ModelError for
    a weight in two parts and l1, or other groups than g has.
    """
    numbers = coefficients({"l1": l1, "group": group}, "proximal", advice=injected(l1, group))
    lr = rate(learning_rate, "learning_rate", SAME)
    rule = Proximal(extended(optimizer, "proximal"), select, numbers.get("l1", 0.0), numbers.get("group", 0.0), lr, per)
    return rule.wrapped()


@dataclass(frozen=True, eq=False)
class Proximal(Rule):
    """See `proximal`."""

    l1: float
    group: float
    rate: Rate
    per: Per
    verb: ClassVar[str] = "proximal"
    state: ClassVar[type] = ProximalState

    @property
    def said(self) -> str:
        """The terms and their numbers."""
        return ", ".join(f"{name} {value:g}" for name, value in (("l1", self.l1), ("group", self.group)) if value)

    def told(self, target: Target) -> str:
        """The terms, and the thresholds of the first step."""
        self._refuse(target)
        lr = self.rate.first
        return self.said if lr is None else f"{self.said}, times lr {lr:g} in step 0"

    def init(self, params: Any) -> ProximalState:
        """The state of the optimizer, and a count of steps."""
        for target in self.targets(params).values():
            self._refuse(target)
        return ProximalState(self.optimizer.init(params), jnp.zeros([], jnp.int32))

    def _update(
        self, updates: Any, state: ProximalState, params: Any = None, **extra: Any
    ) -> tuple[Any, ProximalState]:
        """The update that leads to the weights after the proximal step; what else is given is for the optimizer."""
        self.refuse_other(state)
        pairs = self.pairs(updates, params)
        updates, inner_state = self.optimizer.update(updates, state.inner_state, params, **extra)
        made, lr = step_made(state.inner_state, inner_state), self.rate.at(state.count)

        def change(_: Path, target: Target, update: Any, w: Any) -> Any:
            return if_made(made, leading_to(update, w, lambda x: self._nearer(target, x, lr)), update)

        count = if_made(made, state.count + (state.count < jnp.iinfo(jnp.int32).max), state.count)
        return pairs.changed(updates, change), ProximalState(inner_state, count)

    def _nearer(self, target: Target, w: Any, lr: Any) -> Any:
        if self.l1:
            w = soft_threshold(w, lr * self.l1)
        if self.group:
            entries = prod(target.param.shape) // max(w.size, 1)  # of the weight, for each one of its g
            kept = target.kept_in_g(self.per, "proximal(group=...)")
            w = group_threshold(w, lr * self.group, kept, entries=entries)
        return w

    def _refuse(self, target: Target) -> None:
        name = target.param.name
        if self.l1 and target.in_parts:
            raise ModelError(
                f"proximal(l1={self.l1:g}): {name} of shape {target.param.shape} is in two parts, and zeros of its "
                f"entries are no matter of g; leave it out with select='!{name}', take group=, or nk.fold the weights"
            )
        if self.group:
            target.kept_in_g(self.per, "proximal(group=...)")
