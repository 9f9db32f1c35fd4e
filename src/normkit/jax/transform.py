"""A wrapped optax transformation: two methods of a rule. Imports optax, so it is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from normkit.errors import ArgumentError, ModelError, StateError, in_brief
from normkit.jax.layers import classes_of
from normkit.jax.targets import Path, Target, by_path, explained
from normkit.select import Explanation
from normkit.select.selection import Row

NNX_OPTIMIZER = "flax.nnx.training.optimizer.Optimizer"
Change = Callable[[Path, Target, Any, Any], Any]  # of path, target, update and weight: the update that takes its place


class Wrapped(optax.GradientTransformationExtraArgs):  # type: ignore[misc]  # optax is not followed
    """An optax transformation around another one; `init` and `update` are methods of a rule."""

    def explain(self, params: Any) -> Explanation:
        """What happens to each array of `params`, and the numbers; print it."""
        found: Explanation = self.init.__self__.explain(params)
        return found

    def project(self, params: Any, state: Any = None) -> Any:
        """The weights within the limits of `nk.constrain` here and further in, now and exactly, those inside first.

        What satisfies them comes back bit by bit; without such limits, all. state: needed for hold="initial" alone,
        whose lengths it holds. Raises: ArgumentError as `init`, and for hold="initial" without the state; StateError
        for the state of something else.
        """
        return self.init.__self__.project(params, state)

    def __repr__(self) -> str:
        rule = self.init.__self__
        inner = rule.optimizer if isinstance(rule.optimizer, Wrapped) else "an optax transformation"
        return f"<{rule.said} around {inner}>"


@dataclass(frozen=True, eq=False)
class Rule:
    """What a wrapper does; `optimizer` is what it wraps."""

    optimizer: Any
    select: Any
    verb: ClassVar[str]
    state: ClassVar[type]  # of which kind its state is

    @property
    def said(self) -> str:
        """The rule as a table shows it."""
        raise NotImplementedError

    def told(self, target: Target) -> str:
        """What happens to one weight."""
        raise NotImplementedError

    def targets(self, params: Any) -> dict[Path, Target]:
        """The weights that change, by the path of the array that does."""
        return by_path(params, self.select, self.verb)

    def wrapped(self) -> Any:
        """The transformation."""
        return Wrapped(self.init, self._update)

    def init(self, params: Any) -> Any:
        """The state to begin with."""
        raise NotImplementedError

    def _update(self, updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        """A step; optax calls it with whatever the user gave to `update`, which is for the optimizer inside."""
        raise NotImplementedError

    def explain(self, params: Any) -> Explanation:
        """The table of `params`, with what rules further in do before."""
        own = explained(params, self.select, self.told)
        if not isinstance(self.optimizer, Wrapped):
            return own
        return Explanation(tuple(map(_after, self.optimizer.explain(params).rows, own.rows)))

    def project(self, params: Any, state: Any) -> Any:
        """See `Wrapped.project`; of the limits further in."""
        if state is not None:
            self.refuse_other(state)
        if not isinstance(self.optimizer, Wrapped):
            return params
        return self.optimizer.project(params, None if state is None else state.inner_state)

    def refuse_other(self, state: Any) -> None:
        """Raises: StateError for the state of something else, such as that of the optimizer before it was wrapped."""
        if not isinstance(state, self.state):
            raise StateError(
                f"nk.{self.verb}(...) was given a {type(state).__name__} as its state; make one by the init(params) of "
                f"what nk.{self.verb} returned"
            )

    def pairs(self, updates: Any, params: Any) -> Pairs:
        """Updates and the weights that they are of.

        Raises: ArgumentError where the weights were left out, or are of another structure.
        """
        if params is None:
            raise ArgumentError(
                f"update(updates, state) of nk.{self.verb}(...) was called with params={params}; what it does depends "
                "on the weights: update(updates, state, params)"
            )
        weights = dict(jax.tree_util.tree_flatten_with_path(params)[0])
        targets = self.targets(params)
        here = {path for path, _ in jax.tree_util.tree_flatten_with_path(updates)[0]}
        if targets and here and not here & set(weights):
            raise ArgumentError(
                f"update(<{type(updates).__name__}>, state, <{type(params).__name__}>) of nk.{self.verb}(...): none of "
                f"{len(here)} updates stands where one of the weights does; give trees of the same structure"
            )
        return Pairs(targets, weights)


def _after(first: Row, then: Row) -> Row:
    """A row of two rules of which one is around the other."""
    if not (first.chosen and then.chosen):
        return first if first.chosen else then
    return replace(then, told=f"{first.told}; then {then.told}")


@dataclass(frozen=True)
class Pairs:
    """The weights of a step by their paths, and which of them a rule changes."""

    targets: dict[Path, Target]
    weights: dict[Path, Any]

    def changed(self, updates: Any, change: Change) -> Any:
        """The updates with those of targets changed; a weight without one (None) is left alone."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(updates)
        there = self.targets.keys() & self.weights.keys()
        return structure.unflatten(
            change(path, self.targets[path], update, jnp.asarray(self.weights[path])) if path in there else update
            for path, update in leaves
        )


def leading_to(update: Any, w: Any, after: Callable[[Any], Any]) -> Any:
    """The update that leads to `after(w + update)`; the one given where nothing changes."""
    moved = (w + update).astype(w.dtype)  # as optax.apply_updates has it
    result = after(moved)
    return jnp.where(result == moved, update, result - w)


def like(tree: Any, chosen: dict[Path, Any]) -> Any:
    """A tree like another with what is chosen at its paths, nothing elsewhere; for a tree of no arrays, the tree."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return structure.unflatten(chosen.get(path, optax.MaskedNode()) for path, _ in leaves)


def at_paths(tree: Any) -> dict[Path, Any]:
    """What stands in a tree, by path."""
    return dict(jax.tree_util.tree_flatten_with_path(tree)[0])


# --- what is wrapped --------------------------------------------------------------------------------------------------


def extended(optimizer: Any, verb: str) -> Any:
    """The optimizer as a transformation that takes whatever its `update` is called with.

    Raises: ArgumentError for what is no transformation.
    """
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if isinstance(optimizer, optax.GradientTransformation):
        return optax.with_extra_args_support(optimizer)
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    if NNX_OPTIMIZER in classes_of(optimizer) or hasattr(optimizer, "tx"):
        raise ArgumentError(
            f"{verb}({name}): this holds a transformation; wrap the transformation itself before: "
            f"tx=nk.{verb}(optax.adam(1e-3), ...)"
        )
    if all(callable(getattr(optimizer, part, None)) for part in ("init", "update")):
        return optax.with_extra_args_support(optax.GradientTransformation(optimizer.init, optimizer.update))
    if callable(optimizer):
        raise ArgumentError(
            f"{verb}({in_brief(optimizer)}): expected an optax transformation, such as optax.adam(1e-3); a function "
            "that makes one is to be called first"
        )
    raise ArgumentError(f"{verb}({in_brief(optimizer)}): expected an optax transformation, such as optax.adam(1e-3)")


# --- MultiSteps -------------------------------------------------------------------------------------------------------


def collectors(state: Any) -> list[Any]:
    """The states of `optax.MultiSteps` in a state."""
    is_one = partial(_is_of, optax.MultiStepsState)
    return [node for node in jax.tree.leaves(state, is_leaf=is_one) if is_one(node)]


def step_made(before: Any, after: Any) -> Any:
    """Was this a step of the optimizer, or did it collect a gradient only (`optax.MultiSteps`)? None: always one.

    Raises: ModelError where several of them collect.
    """
    counts = [state.gradient_step for each in (before, after) for state in collectors(each)]
    if not counts:
        return None
    if len(counts) > 2:
        raise ModelError(
            f"{len(counts) // 2} optax.MultiSteps in one optimizer do not step together; wrap what each of them holds"
        )
    return counts[0] != counts[1]


def if_made(made: Any, new: Any, old: Any) -> Any:
    """`new` where a step was made, else `old`."""
    return new if made is None else jnp.where(made, new, old)


def _is_of(kind: type, node: Any) -> bool:
    return isinstance(node, kind)
