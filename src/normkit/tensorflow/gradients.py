"""The gradients that `rec.step` is given, matched with the variables recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import tensorflow as tf

from normkit.errors import ArgumentError, in_brief
from normkit.tensorflow.structure import holds_dicts, orders, paired, structure
from normkit.tensorflow.walk import Located, is_variable, key_of

SHOWN = 3  # names in a message


class Gradients:
    """Finds the column of each gradient: by its place in a list, its name in a dict, or the variable beside it.

    `everything` is what the model holds; `located` of these have a column.
    """

    def __init__(self, model: Any, everything: Sequence[Located], located: Sequence[Located]) -> None:
        self._whole = [] if model is None else structure(model)
        self._columns = {key_of(each.variable): i for i, each in enumerate(located)}
        self._params = [each.param for each in located]
        self._keys = {
            name: key_of(each.variable) for each in everything for name in (each.param.name, *each.param.aliases)
        }

    def matched(self, grads: Any) -> dict[int, Any]:
        """{column: gradient}, without those that are None or of variables that are not recorded.

        A gradient of slices knows the shape of its variable afterwards.
        Raises: ArgumentError for gradients that do not fit the variables.
        """
        if grads is None:
            return {}
        found = [(self._columns[key], g) for key, g in self._found(grads) if key in self._columns and g is not None]
        return {column: self._checked(column, gradient) for column, gradient in found}

    def _found(self, grads: Any) -> list[tuple[int, Any]]:
        """The key of each gradient's variable, and the gradient."""
        if tf.is_tensor(grads):
            grads = [grads] if any(len(order) == 1 for order in orders(self._whole)) else grads
        if not isinstance(grads, Mapping | list | tuple):
            raise ArgumentError(
                f"step(grads={in_brief(type(grads).__name__)}): expected the list that tape.gradient gives, or a dict"
            )
        if not isinstance(grads, Mapping) and grads and all(map(_is_pair, grads)):
            return [(key_of(variable), gradient) for gradient, variable in grads]
        pairs = paired(self._whole, grads)
        if pairs is not None:
            return pairs
        return self._by_name(grads) if holds_dicts(grads) else self._by_place(tf.nest.flatten(grads))

    def _by_name(self, grads: Any) -> list[tuple[int, Any]]:
        named = dict(_named(grads, ""))
        if named and not named.keys() & self._keys.keys():
            self._refuse_near(next(iter(named)))
            raise ArgumentError(
                f"step(grads=...): none of the names {_some(named)} is that of a variable; those are "
                f"{_some(self._keys)}"
            )
        for name in named.keys() - self._keys.keys():
            self._refuse_near(name)
        return [(self._keys[name], gradient) for name, gradient in named.items() if name in self._keys]

    def _refuse_near(self, name: str) -> None:
        if near := get_close_matches(name, self._keys, 1, 0.8):
            raise ArgumentError(f"step(grads={{{name!r}: ...}}): no variable has this name; is {near[0]!r} meant?")

    def _by_place(self, grads: list[Any]) -> list[tuple[int, Any]]:
        trainable, *others = orders(self._whole)
        keys = next((order for order in (trainable, *others) if len(order) == len(grads)), None)
        if keys is None:
            raise ArgumentError(
                f"step(grads=[... {len(grads)} ...]): expected {len(trainable)} gradients, one for each "
                "trainable variable; give a dict of names, or (gradient, variable) pairs, for fewer"
            )
        self._refuse_ambiguous(keys)
        return list(zip(keys, grads, strict=True))

    def _refuse_ambiguous(self, keys: list[int]) -> None:
        """A flat list that was made of dicts: were they flattened as they stand, or by `tf.nest`, which sorts them?"""
        other = next((each for each in orders(self._whole, as_nest=True) if {*each} == {*keys}), keys)
        if (
            place := next((i for i, pair in enumerate(zip(keys, other, strict=True)) if pair[0] != pair[1]), None)
        ) is None:
            return
        names = [
            next(name for name, known in self._keys.items() if known == key) for key in (keys[place], other[place])
        ]
        raise ArgumentError(
            f"step(grads=[... {len(keys)} ...]): is number {place} the gradient of {names[0]!r}, or of {names[1]!r} as "
            "tf.nest sorts dicts? Give them in dicts like the model's, or (gradient, variable) pairs"
        )

    def _checked(self, column: int, gradient: Any) -> Any:
        param = self._params[column]
        if isinstance(gradient, tf.IndexedSlices):
            return _whole(gradient, param.name, param.shape)
        shape = getattr(gradient, "shape", None)
        if shape is None:
            raise ArgumentError(
                f"step(grads=...): {type(gradient).__name__} for {param.name}; expected a tensor or None"
            )
        if tuple(shape) != param.shape:
            raise ArgumentError(f"step(grads=...): shape {tuple(shape)} for {param.name} of shape {param.shape}")
        return gradient


def _whole(slices: tf.IndexedSlices, name: str, shape: tuple[int, ...]) -> tf.IndexedSlices:
    """The slices, with the shape of the variable. Raises: ArgumentError for rows that the variable does not have."""
    values, indices = (tf.convert_to_tensor(part) for part in (slices.values, slices.indices))
    given, count = tuple(values.shape), tuple(indices.shape)
    if not shape or given != (*count, *shape[1:]):
        raise ArgumentError(
            f"step(grads=...): IndexedSlices with values of shape {given} at {count} rows, for {name} of shape {shape}"
        )
    if "CPU" in indices.device and indices.shape[0]:  # another device takes any row, and asking it means to wait
        for row in (int(tf.reduce_min(indices)), int(tf.reduce_max(indices))):
            if not 0 <= row < shape[0]:
                raise ArgumentError(f"step(grads=...): IndexedSlices with row {row}, for {name} of shape {shape}")
    return tf.IndexedSlices(values, indices, tf.constant(shape, tf.int64))


def _is_pair(each: Any) -> bool:
    return isinstance(each, tuple) and len(each) == 2 and is_variable(each[1])


def _named(grads: Any, path: str) -> list[tuple[str, Any]]:
    """The gradients by their paths, as `walk` names variables."""
    items = grads.items() if isinstance(grads, Mapping) else enumerate(grads)
    found: list[tuple[str, Any]] = []
    for key, each in items:
        within = isinstance(each, Mapping | list | tuple)
        found += _named(each, f"{path}{key}.") if within else [(f"{path}{key}", each)]
    return found


def _some(names: Mapping[str, Any]) -> str:
    """The first of the names."""
    shown = ", ".join(repr(name) for name in list(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, ... ({len(names)} in all)"
