"""Weight decay around an optax transformation, by name of its kind. Imports optax, so it is imported when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from normkit.asked import known
from normkit.decay import KINDS, coupled, decayed, refuse_divergent, share
from normkit.decay.asked import checked_request
from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per
from normkit.jax.coefficients import Rate, coefficient, is_traced, rate
from normkit.jax.own_decay import OwnDecay, own_decays
from normkit.jax.targets import Path, Target
from normkit.jax.transform import (
    Rule,
    at_paths,
    collectors,
    extended,
    if_made,
    like,
    step_made,
)
from normkit.jax.walk import walk
from normkit.lengths import norm_except_dim
from normkit.ops.jax_math import widened

SAME = "give the number or the schedule that the optimizer has"
CHANGING = "a number that changes goes to schedule=, as a factor: step -> number"


class DecayState(NamedTuple):
    """A pytree beside the optimizer's own state, saved with it.

    count: steps made, for the schedules; lr_ref: the rate to compare with, for kinds that need one; reference: what
    weights are pulled toward, a tree like params, or the lengths they are.
    """

    inner_state: Any
    count: Any
    lr_ref: Any
    reference: Any


def decay(
    optimizer: Any,
    weight_decay: float,
    *,
    learning_rate: Any = None,
    kind: str = "decoupled",
    select: Any = None,
    schedule: Callable[[Any], Any] | None = None,
    lr_ref: float | None = None,
    reference: Any = None,
    length: Any = None,
    per: Per = "tensor",
) -> Any:
    """An optax transformation that does what `optimizer` does, and decays weights besides.

        l2            g <- g + lambda f w                      before the optimizer sees it; times lr as it does
        decoupled     w <- w - lr lambda f w                   times lr, per step
        independent   w <- w - lr / lr_ref lambda f w          times the schedule of lr, not times its size; per step
        corrected     w <- w - lr^2 / lr_ref lambda f w        times lr and lr over the highest lr, per step
        cautious      w <- w - lr lambda f w                   where the update does not lead away from 0; per step
        toward        w <- w - lr lambda f (w - reference)     or (1 - length / |w|) w; times lr, per step

        optimizer = nk.decay(optax.adam(schedule), 0.1, learning_rate=schedule)
        optimizer = nk.decay(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)), 0.1, learning_rate=1e-3)

    optimizer      any optax transformation that ends with its learning rate; not `optax.adamw`, which decays by itself
    weight_decay   lambda, at least 0
    learning_rate  lr of the optimizer: the same number or schedule (step -> number, from 0). Not needed for "l2"
    select         which weights (docs: select); default: kernels
    schedule       f, a factor on lambda: step -> number
    lr_ref         for "independent" and "corrected": the rate to compare with; default learning_rate(0). It is part of
                   the state; for "corrected" give the highest rate
    reference      for "toward": a tree like params, {name: array}, or "initial", the weights that `init` gets
    length         for "toward": a number, or "initial", the length of each group that `init` gets
    per            the groups of `length`: "tensor", "out", "in" or kept axes

    What comes back has `init`, `update(updates, state, params)`, `explain(params)` and `project` (of `nk.constrain`
    inside it), and works inside jit, vmap and scan, in a chain, a mask or `nnx.Optimizer`. All of w above is the weight
    before the step; the optimizer's update comes on top. Of a weight in two parts (`nk.weight_norm`), g decays and v
    does not. Weights without an update (None) are left alone. Around `optax.MultiSteps`, a step is one of the
    optimizer, not one that collects a gradient only; what leaves out steps in another way, such as
    `optax.apply_if_finite`, belongs around decay and not inside.

    Raises: ArgumentError for what is no transformation, a rate that is absent, no number or (as lr_ref) 0, an unknown
    kind, a step that takes twice the weight or more (with a schedule: in the first step, and outside jit in any); in
    `init` for a rule that reaches nothing; in `update` without params. ModelError where the optimizer decays the same
    weights by itself, as far as that is seen: what optax makes, weights under its masks and labels in `init`.
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101; Defazio 2025, arXiv:2506.02285; arXiv:2510.12402 (cautious).
    """
    inner = extended(optimizer, "decay")
    name = checked_request(kind, lr_ref=lr_ref, reference=reference, length=length, per=per).name
    if not is_traced(weight_decay):
        weight_decay = coefficient(weight_decay, "weight_decay", CHANGING)
    lr = None if learning_rate is None and name == "l2" else rate(learning_rate, "learning_rate", SAME)
    factor = rate(1.0 if schedule is None else schedule, "schedule", "it is a factor on weight_decay")
    if lr_ref is not None and not is_traced(lr_ref):
        lr_ref = coefficient(lr_ref, "lr_ref")
    rule = Decay(inner, select, weight_decay, lr, name, factor, lr_ref, reference, length, per)
    rule.refuse()
    return rule.wrapped()


@dataclass(frozen=True, eq=False)
class Decay(Rule):
    """See `decay`."""

    weight_decay: Any
    rate: Rate | None
    kind: str
    factor: Rate
    lr_ref: Any
    reference: Any
    length: Any
    per: Per
    verb: ClassVar[str] = "decay"
    state: ClassVar[type] = DecayState

    @property
    def said(self) -> str:
        """The kind and its number."""
        number = known(self.weight_decay)
        return self.kind if number is None else f"{self.kind} {number:g}"

    def told(self, target: Target) -> str:
        """What the first step takes of a weight."""
        if self.kind == "l2":
            return f"{self.said}, its gradient gets that times the weight"
        what = "the weight" if self.kind != "toward" else "the distance"
        taken = self._taken(0, self._ref())
        number = known(taken)
        return self.said if number is None else f"{self.said}, step 0 takes {number:g} of {what}"

    def refuse(self) -> None:
        """Raises: as `decay`, for what is seen before any weights are."""
        if KINDS[self.kind].needs_ref and not is_traced(ref := self._ref()):
            number = known(ref)
            share(self.kind, 0.0, lr=1.0, lr_ref=ref if number is None else number)
        self._refuse_divergent(0, self._ref())
        for own in self._own_decays():
            if not own.masks:
                self._refuse_own(own, "all weights")

    def init(self, params: Any) -> DecayState:
        """The state of the optimizer, and what this rule remembers."""
        inner_state, targets = self.optimizer.init(params), self.targets(params)
        if self.kind == "l2" and collectors(inner_state):
            raise ModelError(
                f"decay(kind={self.kind!r}) around optax.MultiSteps would add to each gradient that it collects; put "
                "it inside: optax.MultiSteps(nk.decay(...), k)"
            )
        for own in self._own_decays() if targets else ():
            if twice := targets.keys() & own.paths(params):
                self._refuse_own(own, min(targets[path].param.name for path in twice))
        ref = jnp.asarray(self._ref(), float) if KINDS[self.kind].needs_ref else None
        return DecayState(inner_state, jnp.zeros([], jnp.int32), ref, self._aims(params, targets))

    def _update(self, updates: Any, state: DecayState, params: Any = None, **extra: Any) -> tuple[Any, DecayState]:
        """The optimizer's update with the decay in it; what else is given is for the optimizer."""
        self.refuse_other(state)
        pairs = self.pairs(updates, params)
        self._refuse_divergent(state.count, state.lr_ref)
        taken = {"lr_ref": state.lr_ref, "factor": self.factor.at(state.count)}
        if self.kind == "l2":
            whole = share("l2", self.weight_decay, lr=None, **taken)
            updates = pairs.changed(updates, lambda _path, _target, g, w: coupled(g, w, whole).astype(g.dtype))
        updates, inner_state = self.optimizer.update(updates, state.inner_state, params, **extra)
        made = step_made(state.inner_state, inner_state)
        if self.kind != "l2":
            aims, lr = at_paths(state.reference), self._rate_at(state.count)

            def change(path: Path, target: Target, update: Any, w: Any) -> Any:
                wide, moved = widened(w), widened(update)
                after = decayed(
                    wide,
                    self.weight_decay,
                    lr=lr,
                    kind=self.kind,
                    update=moved,
                    reference=aims.get(path),
                    length=aims.get(path, self.length) if self.length is not None else None,
                    per=self._kept(target),
                    **taken,
                )
                return if_made(made, (moved + (after - wide)).astype(update.dtype), update)

            updates = pairs.changed(updates, change)
        count = if_made(made, state.count + (state.count < jnp.iinfo(jnp.int32).max), state.count)
        return updates, DecayState(inner_state, count, state.lr_ref, state.reference)

    def _own_decays(self) -> list[OwnDecay]:
        return list(own_decays(self.optimizer)) if known(self.weight_decay) != 0 else []

    def _refuse_own(self, own: OwnDecay, what: str) -> None:
        raise ModelError(
            f"nk.decay(...) around an optimizer that decays {what} {own.said} by itself, as optax.adamw and optax.lion "
            "do: decay would be taken twice; make it with weight_decay=0.0, or give it a mask of other weights"
        )

    def _kept(self, target: Target) -> Per:
        return "tensor" if self.length is None else target.kept_in_g(self.per, "decay(length=...)")

    def _rate_at(self, step: Any) -> Any:
        return None if self.rate is None else self.rate.at(step)

    def _ref(self) -> Any:
        return self._rate_at(0) if self.lr_ref is None else self.lr_ref

    def _taken(self, step: Any, ref: Any) -> Any:
        return share(self.kind, self.weight_decay, lr=self._rate_at(step), lr_ref=ref, factor=self.factor.at(step))

    def _refuse_divergent(self, step: Any, ref: Any) -> None:
        """Where the numbers are there to be seen: before the first step, and in steps that jax does not trace."""
        if self.kind == "l2" or isinstance(step, jax.core.Tracer):
            return
        number = known(self._taken(step, ref))
        if number is not None:
            refuse_divergent(
                number, f"decay(weight_decay={self.weight_decay:g}, kind={self.kind!r}) in step {int(step)}"
            )

    def _aims(self, params: Any, targets: dict[Path, Target]) -> Any:
        """What the weights are pulled toward, in a tree like params; None where nothing is remembered."""
        if self.length == "initial":
            found = {path: self._length(target, array) for path, target, array in _arrays(params, targets)}
        elif isinstance(self.reference, str):
            found = {path: jnp.array(array, copy=True) for path, _, array in _arrays(params, targets)}
        elif self.reference is not None:
            given = {item.param.name: item.array for item in walk(self.reference, "reference")}
            found = {path: _aim(given, target, array) for path, target, array in _arrays(params, targets)}
        else:
            return None
        return like(params, found)

    def _length(self, target: Target, array: Any) -> Any:
        return norm_except_dim(widened(jnp.asarray(array)), self._kept(target))


def _arrays(params: Any, targets: dict[Path, Target]) -> list[tuple[Path, Target, Any]]:
    return [(path, targets[path], array) for path, array in at_paths(params).items() if path in targets]


def _aim(given: dict[str, Any], target: Target, array: Any) -> Any:
    name = target.changed_name
    if name not in given or tuple(given[name].shape) != tuple(array.shape):
        there = f"of shape {tuple(given[name].shape)}" if name in given else "absent"
        raise ArgumentError(
            f"reference: {name} is {there}, and of shape {tuple(array.shape)} in params; expected a tree like params, "
            "or reference='initial'"
        )
    return jnp.array(given[name], array.dtype, copy=True)
