"""Where rules take hold of an optimizer that updates weights: two methods of Keras', shadowed on the instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras

from normkit.keras.inside import tensor_of
from normkit.keras.rule import Decay, Now, Rule

Rules = list[tuple[Rule, Now]]


class Ruled(Protocol):
    """The optimizer that has the rules."""

    def refuse_awaiting(self) -> None: ...

    def place_of(self, variable: Any) -> int: ...

    def at(self, place: int, leaf: Any = None, rate: Any = None) -> Rules:
        """The rules on the variable at a place, each with what it needs to know."""


class Tap:
    """The rules of an optimizer in the steps of the one inside of it, or of one of several."""

    def __init__(self, ruled: Ruled, leaf: Any) -> None:
        self.ruled, self.leaf = ruled, leaf
        vars(leaf)["_backend_apply_gradients"] = self.apply_gradients
        vars(leaf)["_backend_update_step"] = self.update_step

    def apply_gradients(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        """Gradients are unscaled, and not yet accumulated or clipped: kind "l2" adds what it does."""
        self.ruled.refuse_awaiting()
        pulled = [self._pulled(each, variable) for each, variable in zip(grads, trainable_variables, strict=True)]
        type(self.leaf)._backend_apply_gradients(self.leaf, pulled, trainable_variables)

    def update_step(self, grads: Any, trainable_variables: Sequence[Any], learning_rate: Any) -> None:
        """The update, between what the rules do before and after it; reached by batches that update alone."""
        rules = [self.ruled.at(self.ruled.place_of(each), self.leaf, learning_rate) for each in trainable_variables]
        olds = [_before(variable, own) for variable, own in zip(trainable_variables, rules, strict=True)]
        type(self.leaf)._backend_update_step(self.leaf, grads, trainable_variables, learning_rate)
        for variable, old, own in zip(trainable_variables, olds, rules, strict=True):
            after(variable, old, own)

    def _pulled(self, gradient: Any, variable: Any) -> Any:
        for rule, now in self.ruled.at(self.ruled.place_of(variable), self.leaf):
            if isinstance(rule, Decay) and rule.kind == "l2":
                gradient = rule.gradient(gradient, _held(variable), now)
        return gradient


def _before(variable: Any, rules: Rules) -> Any:
    """Change a variable before its update; what it was, where a rule asks for that afterwards."""
    old = w = _held(variable)
    kept = (
        keras.ops.copy(old) if any(isinstance(rule, Decay) and rule.kind == "cautious" for rule, _ in rules) else None
    )
    for rule, now in rules:
        w = rule.before(w, now)
    if w is not old:
        variable.assign(w)
    return kept


def after(variable: Any, old: Any, rules: Rules) -> None:
    """Change a variable once its update is added; decay comes before limits."""
    first = w = _held(variable)
    for rule, now in sorted(rules, key=lambda each: not isinstance(each[0], Decay)):
        w = rule.after(w, old, now)
    if w is not first:
        variable.assign(w)


def _held(variable: Any) -> Any:
    return keras.ops.stop_gradient(tensor_of(variable))
