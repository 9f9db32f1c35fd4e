"""What a rule does to one variable in a step of an optimizer: decay it, bring it to zero, keep it within a limit.

The order of a step: the gradient (unscaled, not yet clipped) gets its share of kind "l2"; the other kinds of decay take
theirs from the weight; the optimizer's update is added; "cautious" takes what it may; then come the proximal steps and
the limits, in the order in which they were asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar

import keras
import numpy as np

from normkit import penalize
from normkit.constrain.asked import said, within
from normkit.decay import coupled, decayed, share
from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.keras.inside import is_sparse, outright
from normkit.lengths import norm_except_dim


@dataclass(frozen=True)
class Now:
    """One variable in one step: the rate, the step (from 0), the axes kept, entries of a group, and what was stored."""

    lr: Any
    step: Any
    kept: tuple[int, ...] = ()
    entries: int = 1
    stored: Any = None
    name: str = ""


@dataclass(frozen=True, eq=False)
class Rule:
    """One call of a verb. `select` and `per` say which weights and groups; what the verb stores is made by `start`."""

    select: Any = None
    per: Per = "tensor"
    verb: ClassVar[str] = ""

    def gradient(self, gradient: Any, w: Any, now: Now) -> Any:
        """The gradient with the rule's share."""
        return gradient

    def before(self, w: Any, now: Now) -> Any:
        """The weight before the update is added."""
        return w

    def after(self, w: Any, old: Any, now: Now) -> Any:
        """The weight after it; `old` is what it was before."""
        return w

    def start(self, w: Any, now: Now, given: Any) -> Any:
        """What is to be stored for a weight, both arrays of NumPy; None for nothing."""
        return None

    @property
    def told(self) -> str:
        """What it does, with its number."""
        return ""

    def config(self) -> dict[str, Any]:
        """What it was made of, as a configuration can hold it; references and rules that are no text left out."""
        config = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return {"verb": self.verb, **config, "select": written(self.select)}


@dataclass(frozen=True, eq=False)
class Decay(Rule):
    """See `nk.decay`."""

    kind: str = "decoupled"
    weight_decay: float = 0.0
    schedule: Any = None
    lr_ref: float | None = None
    reference: str | None = None
    length: Any = None
    verb: ClassVar[str] = "decay"

    def gradient(self, gradient: Any, w: Any, now: Now) -> Any:
        if self.kind != "l2":
            return gradient
        if is_sparse(gradient):
            raise ArgumentError(
                f"{now.name} has a sparse gradient, and kind='l2' would add the whole weight to it; take another kind, "
                "such as 'decoupled', or leave it out with select="
            )
        wide = _wide(w)
        times = share("l2", self.weight_decay, lr=None, factor=self._factor_at(now, wide))
        return keras.ops.cast(coupled(keras.ops.cast(gradient, wide.dtype), wide, times), gradient.dtype)

    def before(self, w: Any, now: Now) -> Any:
        return w if self.kind in ("l2", "cautious") else self._decayed(w, now)

    def after(self, w: Any, old: Any, now: Now) -> Any:
        if self.kind != "cautious":
            return w
        wide, was = _wide(w), _wide(old)
        return keras.ops.cast(wide + (self._decayed(was, now, update=wide - was) - was), w.dtype)

    def start(self, w: Any, now: Now, given: Any) -> Any:
        if self.reference is not None:
            return np.array(w) if self.reference == "initial" else given
        return _lengths(w, now.kept) if self.length == "initial" else None

    @property
    def told(self) -> str:
        return f"{self.kind} {self.weight_decay:g}"

    def taken(self, lr: float, factor: float) -> float:
        """What a step of this rate takes, where the kind takes it from the weight itself."""
        if self.kind == "l2":
            return 0.0
        return float(share(self.kind, self.weight_decay, lr=lr, lr_ref=self.lr_ref, factor=factor))

    def factor(self, step: Any) -> Any:
        """The schedule's value at a step, 1 without one."""
        return 1.0 if self.schedule is None else self.schedule(step)

    def _factor_at(self, now: Now, wide: Any) -> Any:
        """Of the dtype that the weight is worked out in; a number stays one: TensorFlow rounds it to float32 first."""
        found = self.factor(now.step)
        return found if isinstance(found, int | float) else keras.ops.cast(found, wide.dtype)

    def _decayed(self, w: Any, now: Now, update: Any = None) -> Any:
        wide = _wide(w)
        return _worked_out(
            decayed,
            {
                "w": w,
                "weight_decay": self.weight_decay,
                "lr": keras.ops.cast(now.lr, wide.dtype),
                "kind": self.kind,
                "lr_ref": self.lr_ref,
                "factor": self._factor_at(now, wide),
                "update": update,
                "reference": now.stored if self.reference is not None else None,
                "length": self.length if self.length != "initial" else now.stored,
                "per": now.kept,
            },
        )

    def config(self) -> dict[str, Any]:
        schedule = None if self.schedule is None else keras.saving.serialize_keras_object(self.schedule)
        return {**super().config(), "schedule": schedule}


@dataclass(frozen=True, eq=False)
class Proximal(Rule):
    """See `nk.proximal`."""

    l1: float = 0.0
    group: float = 0.0
    verb: ClassVar[str] = "proximal"

    def after(self, w: Any, old: Any, now: Now) -> Any:
        lr = keras.ops.cast(now.lr, _wide(w).dtype)
        if self.l1:
            w = _worked_out(penalize.soft_threshold, {"w": w, "threshold": lr * self.l1})
        if self.group:
            given = {"w": w, "threshold": lr * self.group, "per": now.kept, "entries": now.entries}
            w = _worked_out(penalize.group_threshold, given)
        return w

    @property
    def told(self) -> str:
        terms = [f"{name} {value:g}" for name, value in (("l1", self.l1), ("group", self.group)) if value]
        return f"proximal {', '.join(terms)}"


@dataclass(frozen=True, eq=False)
class Limit(Rule):
    """See `nk.constrain`."""

    name: str = ""
    value: Any = None
    verb: ClassVar[str] = "constrain"

    def after(self, w: Any, old: Any, now: Now) -> Any:
        value = now.stored if self.value == "initial" else self.value
        with in_float64():
            return _worked_out(within, {"name": self.name, "w": w, "value": value, "per": now.kept})

    def start(self, w: Any, now: Now, given: Any) -> Any:
        if self.value != "initial":
            return None
        found = _lengths(w, now.kept)
        if empty := int((found == 0).sum()):
            raise ArgumentError(
                f"hold='initial': {now.name} of shape {tuple(w.shape)} has {empty} groups of length 0, which would "
                f"stay so for ever; leave it out with select='!{now.name}', or hold a number"
            )
        return found

    @property
    def told(self) -> str:
        return said(self.name, self.value)


RULES: dict[str, type[Rule]] = {kind.verb: kind for kind in (Decay, Proximal, Limit)}


def rule_from(config: dict[str, Any]) -> Rule:
    """The rule that a configuration holds."""
    given = dict(config)
    kind = RULES[given.pop("verb")]
    if given.get("schedule") is not None:
        given["schedule"] = keras.saving.deserialize_keras_object(given["schedule"])
    for name in ("per", "value"):
        given[name] = tuple(given[name]) if isinstance(given.get(name), list) else given.get(name)
    return kind(**{each.name: given[each.name] for each in fields(kind) if each.init})


def written(select: Any) -> Any:
    """A rule as text that can be saved; None where it is none, or has classes or functions."""
    items = list(select) if isinstance(select, list | tuple | set | frozenset) else [select]
    return items if select is not None and all(isinstance(item, str) for item in items) else None


def is_written(select: Any) -> bool:
    """Is a rule kept whole by `written`?"""
    return select is None or written(select) is not None


def in_float64() -> Any:
    """Inside, JAX has float64, whatever its settings; elsewhere nothing changes."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    return import_module("normkit.ops.jax").float64()


def _worked_out(formula: Callable[..., Any], given: dict[str, Any]) -> Any:
    """The formula of what is given by name, its arrays of the backend's kind; see `outright`."""
    arrays = {name: each for name, each in given.items() if hasattr(each, "shape")}
    rest = {name: each for name, each in given.items() if name not in arrays}
    return outright(lambda *found: formula(**dict(zip(arrays, found, strict=True)), **rest), *arrays.values())


def _wide(w: Any) -> Any:
    return w if keras.backend.standardize_dtype(w.dtype) == "float64" else keras.ops.cast(w, "float32")


def _lengths(w: Any, kept: tuple[int, ...]) -> Any:
    return norm_except_dim(np.asarray(w, np.float64), kept)
