"""`RuledOptimizer`: an optimizer with rules around its steps; what `decay`, `constrain` and `proximal` give back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from normkit.errors import ModelError, StateError
from normkit.keras.again import Weakly
from normkit.keras.aims import Aim, Aimed, givens
from normkit.keras.inside import model_of_step, tensor_of, traced_again, value_now
from normkit.keras.ring_hooks import inner_of, leaves_of
from normkit.keras.rule import Limit, Now, Rule
from normkit.keras.ruling import Ruling, asks_start, refuse_conflicts, refuse_rate, resolved, saved_ruling, shapes_of
from normkit.keras.tap import Tap, after
from normkit.select import Explanation
from normkit.select.selection import Row


@keras.saving.register_keras_serializable(package="normkit")
class RuledOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras has no types
    """The optimizer that it holds, and rules on what its steps leave of the weights. Made by `nk.decay`,
    `nk.constrain` and `nk.proximal`; compile the model with it.

    In a step: gradients are unscaled; kind "l2" adds its share; they are accumulated and clipped; the other kinds of
    decay take theirs of the weight; the update is added; "cautious" takes what it may; proximal steps and limits
    follow; then averages (`use_ema`) and constraints of the layers. Batches that a loss scaler skips, and those that
    only accumulate, change nothing. Weights without a gradient are left alone.

    inner_optimizer   any Keras optimizer; `learning_rate`, `iterations` and loss scaling are its own
    rules             as `get_config` writes them; a user calls the verbs

    `explain()` prints what happens to which weight; `project()` applies the limits now; a loss scaler around it has
    both as soon as the model is known. It is saved with the model: `import normkit.keras` before `load_model`. What
    rules store are variables of the optimizer.
    """

    hands_on = True  # each call of it is one of the inner optimizer's

    def __init__(self, inner_optimizer: Any, rules: Sequence[Any] = (), name: str | None = None) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer
        held = self.__dict__  # past the tracking of attributes, which takes lists of variables for the optimizer's own
        held["_rulings"] = [each if isinstance(each, Ruling) else saved_ruling(each) for each in rules]
        held["_model"] = Weakly()
        held["_applying"] = False
        held["_current"] = {}
        vars(inner_optimizer)["apply"] = self._applied_alone

    # -- what Keras calls ----------------------------------------------------------------------------------------------

    def build(self, variables: Any) -> None:
        """Build the inner optimizer, and find out which of its variables the rules act on."""
        if self.built:
            return
        variables = list(variables)
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        model = self._model.get() or model_of_step(variables)
        found = [resolved(ruling, variables, model) for ruling in self._rulings]
        refuse_conflicts(self.inner_optimizer, self._rulings, found, variables)
        super().build(variables)
        self.__dict__["_model"] = Weakly(model)
        self.shown_by(getattr(model, "optimizer", None))
        for ruling, each in zip(self._rulings, found, strict=True):
            self._settle(ruling, each)
        for leaf in leaves_of(inner_of(self.inner_optimizer)):
            Tap(self, leaf)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        if not self.built and trainable_variables is not None:
            self.build(list(trainable_variables))
        held = self.__dict__
        held["_applying"] = True
        try:
            self.inner_optimizer.apply(grads, trainable_variables)
        finally:
            held["_applying"] = False

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        super().apply_gradients(grads_and_vars)
        return self.inner_optimizer.iterations

    @property
    def variables(self) -> list[Any]:
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, int | float):
            step = int(value_now(self.iterations))
            for ruling in self._rulings:
                refuse_rate(ruling.rule, float(value), step)
        self.inner_optimizer.learning_rate = value

    @property
    def loss_scale_factor(self) -> Any:
        return getattr(self.__dict__.get("inner_optimizer"), "loss_scale_factor", None)

    @loss_scale_factor.setter
    def loss_scale_factor(self, value: Any) -> None:
        if "inner_optimizer" in self.__dict__:
            self.inner_optimizer.loss_scale_factor = value

    def scale_loss(self, loss: Any) -> Any:
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Any) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)
        if self.built and any(leaf.use_ema for leaf in leaves_of(inner_of(self.inner_optimizer))):
            self.project()

    def save_own_variables(self, store: Any) -> None:
        for i, variable in enumerate(self._variables):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()) != len(self._variables):  # Keras' own optimizers warn as well, and the model is loaded
            warnings.warn(
                f"the saved {self.name} has {len(store.keys())} variables and this one {len(self._variables)}, so its "
                "state is not loaded: call the same verbs in the same order, as when it was saved",
                stacklevel=2,
            )
            return
        for i, variable in enumerate(self._variables):
            variable.assign(store[str(i)])
        for ruling in self._rulings:
            ruling.awaits = False

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "rules": [ruling.config() for ruling in self._rulings],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> RuledOptimizer:
        given = dict(config)
        inner = keras.saving.deserialize_keras_object(given.pop("inner_optimizer"), custom_objects=custom_objects)
        return cls(inner, **given)

    # -- what a user calls ---------------------------------------------------------------------------------------------

    @property
    def told(self) -> str:
        """The rules in brief."""
        return ", ".join(ruling.rule.told for ruling in self._rulings)

    def explain(self) -> Explanation:
        """What happens to every weight and why; print it.

        Raises: StateError before the weights are known: by `model=`, or by the first step.
        """
        tables = [ruling.rows for ruling in self._rulings]
        if not all(tables):
            raise StateError(
                f"{self.name} does not know its weights yet: give model= to the verb, or build it with "
                "optimizer.build(model.trainable_variables)"
            )
        return Explanation(tuple(_joined(rows) for rows in zip(*tables, strict=True)))

    def project(self) -> None:
        """Apply the limits of `nk.constrain` to the weights now.

        Raises: StateError before the optimizer is built.
        """
        if not self.built:
            raise StateError(f"{self.name} is not built yet: call optimizer.build(model.trainable_variables) first")
        for place, variable in enumerate(self._trainable_variables):
            limits = [each for each in self.at(place) if isinstance(each[0], Limit)]
            if limits:
                after(variable, None, limits)

    # -- what the verbs call -------------------------------------------------------------------------------------------

    def shown_by(self, outer: Any) -> None:
        """Let the optimizers around it, such as a loss scaler, have `explain` and `project` as well."""
        around = []
        while outer is not self and hasattr(outer, "inner_optimizer"):
            around.append(outer)
            outer = outer.inner_optimizer
        for each in around if outer is self else ():
            vars(each).update(explain=self.explain, project=self.project)

    def add(self, ruling: Ruling, model: Any) -> None:
        """One more rule. Raises: what `resolved` and `refuse_conflicts` raise; nothing is changed then."""
        inner, model = self.inner_optimizer, self._model.get() if model is None else model
        variables = list(self._trainable_variables) if self.built else _trained(inner, model)
        if variables is not None:
            found = resolved(ruling, variables, model)
            known = [resolved(each, variables, model) for each in self._rulings]
            refuse_conflicts(self.inner_optimizer, [*self._rulings, ruling], [*known, found], variables)
            starts = {aim.name: value_now(variables[aim.place]) for aim in found.aims if asks_start(ruling.rule)}
            for aim in found.aims:
                ruling.rule.start(starts.get(aim.name), Now(None, None, aim.kept, aim.entries, None, aim.name), None)
            ruling.rows, ruling.aims, ruling.shapes = found.rows, found.aims, shapes_of(variables)
            ruling.starts = {} if self.built else starts
        self._rulings.append(ruling)
        self.__dict__["_model"] = Weakly(model)
        if self.built:
            self._settle(ruling, found)
            if model is not None:
                traced_again(model)
        elif inner.built:
            self.build(inner._trainable_variables)

    # -- inside a step, called by `Tap` --------------------------------------------------------------------------------

    def refuse_awaiting(self) -> None:
        """Raises: StateError where arrays that a rule was given are in a saved state that has not been loaded."""
        for ruling in self._rulings:
            if ruling.awaits:
                raise StateError(
                    f"{ruling.rule.told}: the arrays given as reference= are with the saved state, which has not been "
                    "loaded; call nk.decay anew with reference="
                )

    def place_of(self, variable: Any) -> int:
        """The place of a variable among those that are trained."""
        return int(self._trainable_variables_indices[self._var_key(variable)])

    def at(self, place: int, leaf: Any = None, rate: Any = None) -> list[tuple[Rule, Now]]:
        """The rules on one variable, each with what it needs to know."""
        found = []
        for ruling in self._rulings:
            for aim in ruling.aims:
                if aim.place == place:
                    stored = ruling.stored.get(place)
                    stored = None if stored is None else tensor_of(stored)
                    step = None if leaf is None else tensor_of(leaf.iterations)
                    lr = None if rate is None else tensor_of(rate)
                    found.append((ruling.rule, Now(lr, step, aim.kept, aim.entries, stored, aim.name)))
        return found

    # -- outside of one ------------------------------------------------------------------------------------------------

    def _settle(self, ruling: Ruling, found: Aimed) -> None:
        """Let a rule act on what it reaches; make the variables that it stores."""
        variables = self._trainable_variables
        given = givens(ruling.rule, found.aims, variables, ruling.given) if ruling.given is not None else {}
        starts = {
            aim.place: self._start(ruling, aim, given.get(aim.place)) for aim in found.aims if asks_start(ruling.rule)
        }
        ruling.aims, ruling.rows, ruling.shapes = found.aims, found.rows, shapes_of(variables)
        for place, array in starts.items():
            dtype = keras.backend.standardize_dtype(variables[place].dtype)
            ruling.stored[place] = self.add_variable(
                shape=array.shape,
                initializer=lambda shape, dtype=None, array=array: keras.ops.convert_to_tensor(array, dtype),
                dtype=dtype if dtype == "float64" else "float32",
                name=f"{ruling.rule.verb}_{place}",
            )
        ruling.given, ruling.starts = None, {}

    def _start(self, ruling: Ruling, aim: Aim, given: Any) -> Any:
        variable = self._trainable_variables[aim.place]
        if ruling.awaits:
            return np.zeros(tuple(variable.shape), np.float32)
        known = ruling.starts.get(aim.name)
        w = value_now(variable) if known is None else known
        return ruling.rule.start(w, Now(None, None, aim.kept, aim.entries, None, aim.name), given)

    def _applied_alone(self, grads: Any, trainable_variables: Any = None) -> None:
        """`apply` of the inner optimizer; by itself it would leave the rules out."""
        inner = self.inner_optimizer
        if not self._applying:
            raise ModelError(
                f"{type(inner).__name__} makes a step without the rules that were put around it: compile the model "
                "with the optimizer that nk.decay, nk.constrain or nk.proximal gave back"
            )
        type(inner).apply(inner, grads, trainable_variables)


def _trained(inner: Any, model: Any) -> list[Any] | None:
    if inner.built:
        return list(inner._trainable_variables)
    return None if model is None else list(model.trainable_variables)


def _joined(rows: Sequence[Row]) -> Row:
    taken = [row for row in rows if row.chosen]
    if not taken:
        return rows[0]
    return Row(rows[0].name, rows[0].role, rows[0].role_from, True, "; ".join(row.why for row in taken))
