"""Limits on weights around an optax transformation. Imports optax, so it is imported when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from normkit.constrain import spectral_cap
from normkit.constrain.asked import one_limit, said, within
from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per
from normkit.jax.coefficients import refuse_traced
from normkit.jax.stacks import of_each_layer
from normkit.jax.targets import Path, Target
from normkit.jax.transform import (
    Rule,
    at_paths,
    extended,
    if_made,
    leading_to,
    like,
    step_made,
)
from normkit.lengths import norm_except_dim
from normkit.ops.jax import float64
from normkit.ops.jax_math import widened
from normkit.ops.jax_mesh import automatic


class ConstrainState(NamedTuple):
    """A pytree beside the optimizer's own state, saved with it; lengths: for hold="initial", a tree like params."""

    inner_state: Any
    lengths: Any


def constrain(
    optimizer: Any,
    *,
    max_norm: float | None = None,
    unit_norm: bool = False,
    min_max_norm: tuple[float, float] | None = None,
    hold: Any = None,
    spectral_cap: float | None = None,
    select: Any = None,
    per: Per = "out",
) -> Any:
    """An optax transformation that does what `optimizer` does, and then brings weights within a limit: one of

        max_norm=c              w_g <- w_g min(1, c / |w_g|)             for each group g
        unit_norm=True          w_g <- w_g / |w_g|
        min_max_norm=(lo, hi)   w_g <- w_g clip(|w_g|, lo, hi) / |w_g|
        hold=r                  w_g <- w_g r / |w_g|                     "initial": the length that `init` gets
        spectral_cap=s          W <- W with no singular value above s    of each layer; `per` says the rows of W

        optimizer = nk.constrain(optax.adam(1e-3), max_norm=3.0)         several: constrain(constrain(...), ...)
        params = optimizer.project(params)                               now, exactly

    select  which weights (docs: select); default: kernels
    per     what is a group: "out", "in", "tensor" or kept axes

    Units: lengths in weight space; nothing is times lr. Lengths are taken in float64, whatever jax_enable_x64 says. The
    update is what leads to the limited weights, and adding it rounds once more: an entry ends within a unit in the last
    place (of what it was before the step, or is) of where it belongs. `project` is exact, and a second one changes no
    bit. A group of zeros stays zero. Of a weight in two parts (`nk.weight_norm`), g is changed. The weights of `init`
    stay as they are until the first step. Derivatives go through a step, but not through spectral_cap's.

    What comes back has `init`, `update(updates, state, params)`, `project(params)` and `explain(params)`.
    Raises: ArgumentError for what is no transformation, none or several limits, a limit that cannot be; in `init` for a
    rule that reaches nothing, unknown axes, and hold="initial" of a group that is zero; in `update` without params.
    ModelError for a weight in two parts whose groups are others, and for its spectral_cap.
    """
    given = {
        "max_norm": max_norm,
        "unit_norm": unit_norm,
        "min_max_norm": min_max_norm,
        "hold": hold,
        "spectral_cap": spectral_cap,
    }
    refuse_traced(given)
    rule = Constraint(extended(optimizer, "constrain"), select, *one_limit(given), per)
    return rule.wrapped()


@dataclass(frozen=True, eq=False)
class Constraint(Rule):
    """See `constrain`."""

    name: str
    value: Any
    per: Per
    verb: ClassVar[str] = "constrain"
    state: ClassVar[type] = ConstrainState

    @property
    def said(self) -> str:
        """The limit and its number."""
        return said(self.name, self.value)

    def told(self, target: Target) -> str:
        """The limit, and of how many groups."""
        if self.name == "spectral_cap":
            return self.said
        count = int(np.prod([target.param.shape[axis] for axis in self._kept(target)], dtype=int))
        return f"{self.said}, {count} group{'s' * (count != 1)}"

    def init(self, params: Any) -> ConstrainState:
        """The state of the optimizer, and the lengths that are held."""
        targets = self.targets(params)
        for target in targets.values():
            self._kept(target)
        lengths = None
        if self.value == "initial":
            found = {path: array for path, array in at_paths(params).items() if path in targets}
            lengths = like(params, {path: self._length(targets[path], array) for path, array in found.items()})
        return ConstrainState(self.optimizer.init(params), lengths)

    def _update(
        self, updates: Any, state: ConstrainState, params: Any = None, **extra: Any
    ) -> tuple[Any, ConstrainState]:
        """The update that leads to limited weights; what else is given is for the optimizer."""
        self.refuse_other(state)
        pairs = self.pairs(updates, params)
        updates, inner_state = self.optimizer.update(updates, state.inner_state, params, **extra)
        made, lengths = step_made(state.inner_state, inner_state), at_paths(state.lengths)

        def change(path: Path, target: Target, update: Any, w: Any) -> Any:
            return if_made(made, leading_to(update, w, lambda x: self._limited(target, x, lengths.get(path))), update)

        return pairs.changed(updates, change), ConstrainState(inner_state, state.lengths)

    def project(self, params: Any, state: Any) -> Any:
        """See `Wrapped.project`."""
        if self.value == "initial" and state is None:
            raise ArgumentError(
                f"project(<{type(params).__name__}>): the lengths of hold='initial' are in the state; call "
                "project(params, state)"
            )
        params = super().project(params, state)
        lengths = {} if state is None else at_paths(state.lengths)
        leaves, structure = jax.tree_util.tree_flatten_with_path(params)
        targets = self.targets(params)
        return structure.unflatten(
            self._limited(targets[path], jnp.asarray(leaf), lengths.get(path)) if path in targets else leaf
            for path, leaf in leaves
        )

    def _limited(self, target: Target, w: Any, length: Any) -> Any:
        """Lengths in float64, in this function alone."""
        value = self.value if length is None else length
        with float64():
            if self.name == "spectral_cap":
                return automatic(
                    lambda w: of_each_layer(lambda x, kept: spectral_cap(x, value, kept), target.param, w, self.per),
                    w,
                    like=w,
                )
            return within(self.name, w, value, self._kept(target))

    def _kept(self, target: Target) -> tuple[int, ...]:
        if self.name == "spectral_cap" and target.in_parts:
            name = target.param.name
            raise ModelError(
                f"spectral_cap={self.value:g}: {name} of shape {target.param.shape} is in two parts, whose singular "
                f"values are no numbers of g; leave it out with select='!{name}', or nk.fold the weights first"
            )
        return target.kept_in_g(self.per, f"constrain({self.name}=...)")

    def _length(self, target: Target, array: Any) -> Any:
        found = norm_except_dim(widened(jnp.asarray(array)), self._kept(target))
        if not isinstance(found, jax.core.Tracer) and (empty := int(jnp.sum(found == 0))):
            name = target.param.name
            raise ArgumentError(
                f"hold='initial': {name} of shape {target.param.shape} has {empty} groups of length 0, which would "
                f"stay so for ever; leave it out with select='!{name}', or hold a number"
            )
        return found
