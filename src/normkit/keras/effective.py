"""A weight that is worked out: what stands in a layer where its variable was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras

from normkit.errors import ModelError
from normkit.keras.inside import as_stored, exchange, is_recomputed, is_symbolic, layers_in, outright, put
from normkit.normalize import norm_except_dim, normalized

_HELD = threading.local()  # .values: {id of a weight: its value}, in a layer's call


class Effective(keras.Variable):  # type: ignore[misc]  # Keras has no types
    """The weight w = g v / |v|_p of a layer, read as the variable that it was; it holds no number itself.

    `assign(w)` makes v = w and g = |w|_p. `kept` are the axes that g keeps.
    """

    _value = None
    _initializer = None

    def __init__(self, old: Any, kept: tuple[int, ...], p: float) -> None:
        # not super().__init__, which would make a variable
        for name in ("_name", "_path", "_shape", "_ndim", "_dtype", "_autocast"):
            setattr(self, name, getattr(old, name))
        for name in ("_aggregation", "_synchronization", "_layout", "_overwrite_with_gradient"):
            setattr(self, name, getattr(old, name))
        self._regularizer = self._constraint = None
        self.kept, self.p = kept, p
        self.g: Any = None
        self.v: Any = None

    @property
    def value(self) -> Any:
        """The weight now, in the dtype that its layer computes in."""
        held = getattr(_HELD, "values", {}).get(id(self))
        return self._maybe_autocast(self.worked_out() if held is None else held)

    def worked_out(self) -> Any:
        """The weight from g and v as they are, in their dtype."""
        if is_symbolic():
            return self.v.value
        return outright(lambda v, g: normalized(v, g, self.kept, p=self.p), self.v.value, self.g.value)

    def length(self, value: Any) -> Any:
        """What g is for a weight."""
        return outright(lambda v: norm_except_dim(v, self.kept, p=self.p), value)

    def assign(self, value: Any) -> Any:
        """Let the weight be `value`: v is it, g its length."""
        if value is self:
            return value
        value = keras.ops.stop_gradient(keras.ops.convert_to_tensor(value, dtype=self._dtype))
        self.v.assign(value)
        self.g.assign(self.length(value))
        return value

    @property
    def trainable(self) -> bool:
        """Is one of g and v trained?"""
        return bool(self.g.trainable or self.v.trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self.g.trainable = self.v.trainable = bool(value)


class Unseen(keras.layers.Wrapper):  # type: ignore[misc]
    """A wrapper that names do not show: its layer's weights are called as they would be without it."""


def effective_in(layer: Any) -> list[Effective]:
    """The worked out weights that a layer itself has, not those of layers in it."""
    held = vars(layer).values() if hasattr(layer, "__dict__") else ()
    return list({id(value): value for value in held if isinstance(value, Effective)}.values())


def all_effective(layer: Any) -> list[Effective]:
    """Those of a layer and of all layers in it."""
    return [weight for each in layers_in(layer) for weight in effective_in(each)]


def parts_of(variable: Any) -> tuple[Any, ...]:
    """The variables that one is made of: itself, or its g and v."""
    return (variable.g, variable.v) if isinstance(variable, Effective) else (variable,)


def weight_of(variable: Any) -> Any:
    """The worked out weight that a variable is g or v of; None for any other."""
    found = getattr(variable, "normkit_weight", None)
    return found if isinstance(found, Effective) else None


def value_of(variable: Any) -> Any:
    """What a variable holds, or a worked out weight is, as a training step sees it."""
    return variable.worked_out() if isinstance(variable, Effective) else variable.value


def settled(variable: Any) -> Any:
    """The same for a look from outside: what can be read as an array."""
    return keras.ops.stop_gradient(value_of(variable)) if isinstance(variable, Effective) else variable.value


@contextmanager
def held(layer: Any) -> Iterator[None]:
    """Inside, each weight is worked out once, however often it is read: a recurrent layer reads it at each step.

    Not of a layer that is computed again for the gradient: that is after this, and must do the same as before.
    """
    before = getattr(_HELD, "values", {})
    weights = [] if is_recomputed(layer) else all_effective(layer)
    _HELD.values = before | {id(weight): weight.worked_out() for weight in weights}
    try:
        yield
    finally:
        _HELD.values = before


def part(layer: Any, variable: Any, kept: tuple[int, ...], p: float) -> Effective:
    """Let a layer have g and v in the place of a variable, with the value that this has.

    Raises: ModelError where no attribute of the layer holds the variable; nothing is changed then.
    """
    attributes = attributes_of(layer, variable)
    weight = Effective(variable, kept, p)
    shape = tuple(variable.shape)
    ones = tuple(size if axis in kept else 1 for axis, size in enumerate(shape))
    weight.g, weight.v = exchange(
        layer,
        variable,
        {
            "g": (ones, lambda shape, dtype=None: weight.length(as_stored(variable))),
            "v": (shape, lambda shape, dtype=None: keras.ops.copy(as_stored(variable))),
        },
    )
    for attribute in attributes:
        put(layer, attribute, weight, {"g": weight.g, "v": weight.v})
    for variable_of in (weight.g, weight.v):
        vars(variable_of)["normkit_weight"] = weight
    set_regularizer(weight, variable.regularizer)
    return weight


def whole_of(variable: Any) -> Any:
    """The worked out weight whose v bears a regularizer; any other variable is itself."""
    put_on = variable.regularizer
    return put_on.args[0] if isinstance(put_on, partial) and put_on.func is _penalty else variable


def regularizer_of(variable: Any) -> Any:
    """What stands on a variable, or on a worked out weight; None where there is none."""
    if not isinstance(variable, Effective):
        return variable.regularizer
    put_on = variable.v.regularizer
    return put_on.args[1] if isinstance(put_on, partial) and put_on.func is _penalty else put_on


def set_regularizer(variable: Any, regularizer: Any) -> None:
    """Let it stand there instead; None takes it away."""
    if isinstance(variable, Effective):
        variable.v.regularizer = None if regularizer is None else partial(_penalty, variable, regularizer)
    else:
        variable.regularizer = regularizer


def attributes_of(layer: Any, variable: Any) -> list[str]:
    """The attributes of a layer that hold its variable.

    Raises: ModelError where there is none, as for one in a list.
    """
    names = [name for name, value in vars(layer).items() if value is variable]
    if not names:
        raise ModelError(
            f"{variable.path} cannot be normalized: no attribute of {type(layer).__name__} is this variable, which is "
            "in a list or a dict of the layer's; make it an attribute"
        )
    return names


def _penalty(weight: Effective, regularizer: Any, _: Any) -> Any:
    """A regularizer of the weight as one of v: Keras asks those of variables that are trained, each once."""
    return regularizer(weight.worked_out())
