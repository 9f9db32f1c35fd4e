"""What a transformation of optax decays by itself, as `optax.adamw` does. Imports optax, so when it is asked for.

What optax makes are functions: looked for is the one of `optax.add_decayed_weights`, and a number that is called
`weight_decay`, among what they hold. What is not made with optax's functions cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax

from normkit.asked import known
from normkit.jax.targets import Path
from normkit.jax.transform import Rule, at_paths

Mask = Callable[[Any], Any]  # of params: the tree of those that are left, which may be nested


@dataclass(frozen=True)
class OwnDecay:
    """A coefficient, or a schedule of one, and the masks that it stands below."""

    coefficient: Any
    masks: tuple[Mask, ...]

    @property
    def said(self) -> str:
        """How much, in words."""
        return "by a schedule" if callable(self.coefficient) else f"with {float(self.coefficient):g}"

    def paths(self, params: Any) -> set[Path]:
        """Where the arrays stand that it decays."""
        for mask in self.masks:
            params = mask(params)
        return set(at_paths(params))


def own_decays(optimizer: Any, masks: tuple[Mask, ...] = (), above: tuple[Any, ...] = ()) -> Iterator[OwnDecay]:
    """Those of a transformation, of what it holds, and of rules around one; `above`: what holds it."""
    if any(optimizer is one for one in above):
        return
    within = (*above, optimizer)
    for one in _held(optimizer):
        yield from own_decays(one, masks, within)
    if getattr(optimizer, "__closure__", None):
        yield from _of_function(optimizer, masks, within)


def _held(node: Any) -> tuple[Any, ...] | list[Any]:
    if isinstance(node, Rule):
        return (node.optimizer,)
    if isinstance(node, optax.MultiSteps):
        return (node.inner_opt,)
    if isinstance(node, optax.GradientTransformation):  # of update and init one: both hold what is inside
        return (node.init if _maker(node.init) == "inject_hyperparams" else node.update,)
    if isinstance(node, tuple | list):
        return node
    return (node.__self__,) if hasattr(node, "__self__") else ()


def _maker(function: Any) -> str:
    """The function of optax that made this one; "" for another."""
    ours = str(getattr(function, "__module__", "")).startswith("optax.")
    return str(getattr(function, "__qualname__", "")).split(".")[0] if ours else ""


def _of_function(function: Any, masks: tuple[Mask, ...], above: tuple[Any, ...]) -> Iterator[OwnDecay]:
    held: dict[str, Any] = {
        name: getattr(cell, "cell_contents", None)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True)
    }
    maker = _maker(function)
    if maker == "masked":
        own = () if held["mask"] is True else (partial(_masked, held["mask"]),)
        yield from own_decays(held["inner"], (*masks, *own), above)
    elif maker == "partition":
        for label, inner in held["transforms"].items():
            yield from own_decays(inner, (*masks, partial(_labelled, held["param_labels"], label)), above)
    elif maker == "inject_hyperparams":
        started = {name: schedule(schedule.init()) for name, schedule in held["sched_hps"].items()}
        made = held["inner_factory"](**held["other_hps"], **held["numeric_hps"], **started)
        yield from own_decays(made, masks, above)
    else:
        given = held.pop("weight_decay", None) if maker else None
        if (callable(given) and maker == "add_decayed_weights") or (known(given) or 0.0) > 0:
            yield OwnDecay(given, masks)
        for one in held.values():
            yield from own_decays(one, masks, above)


def _masked(mask: Any, params: Any) -> Any:
    """As `optax.masked` takes arrays away."""
    mask = mask(params) if callable(mask) else mask
    return jax.tree.map(lambda taken, part: part if taken else optax.MaskedNode(), mask, params)


def _labelled(labels: Any, label: Any, params: Any) -> Any:
    """As `optax.partition` takes the arrays of a label."""
    labels = labels(params) if callable(labels) else labels
    return _masked(jax.tree.map(lambda given: given == label, labels), params)
