"""Every variable of what was given, each once, under one name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.ops import tensorflow as ops
from normkit.select.names import unused
from normkit.tensorflow.layers import kind_of
from normkit.tensorflow.names import layer_names, own_name
from normkit.types import Param

KERAS = ("tf_keras", "keras")


@dataclass(frozen=True)
class Located:
    """A `Param` and its variable."""

    param: Param
    variable: Any

    def value(self) -> Any:
        """The tensor now."""
        return ops.read(self.variable)


@dataclass(frozen=True)
class _Seen:
    """One sighting of a variable: where, in what, and whether it was made to be learned."""

    path: str
    variable: Any
    owner: Any
    learned: bool = True


def walk(given: Any) -> list[Located]:
    """All variables of a tf.Module, a Keras or tf_keras model, a variable, or several of these in lists and dicts.

    Names are attribute paths (`encoder.layers.0.w`), keys of dicts, places in lists; in Keras models the layers' names,
    of which those that Keras numbered are numbered anew. In a list a variable's own name is its name. A variable that
    is reached on several paths is one `Param`: the first path its name, the others aliases.
    Raises: ArgumentError where there is no such thing, ModelError where it has no variables yet.
    """
    check(given)
    places: dict[int, list[_Seen]] = {}
    for seen in _found(given):
        places.setdefault(_key(seen.variable), []).append(seen)
    if not places:
        raise ModelError(f"{type(given).__name__} has no variables yet: build it, or run one batch through it, first")
    taken: set[str] = set()
    return [_united(sightings, taken) for sightings in places.values()]


def _found(given: Any) -> list[_Seen]:
    """All sightings; none where tf_keras says that a model is not built."""
    try:
        return list(_sightings(given, "", None, frozenset()))
    except ValueError:
        return []


def check(given: Any) -> None:
    """Raises: ArgumentError for what can hold no variables."""
    if isinstance(given, type):
        raise ArgumentError(f"model={given.__name__} is a class; give an instance, such as {given.__name__}(...)")
    if is_variable(given) or isinstance(given, tf.Module) or is_keras(given):
        return
    if isinstance(given, Mapping | list | tuple):
        several = given.values() if isinstance(given, Mapping) else given
        if not len(given):
            raise ArgumentError(f"model={in_brief(given)} is empty; give a tf.Module, or variables in a list or dict")
        for each in several:
            check(each)
        return
    if tf.is_tensor(given):
        raise ArgumentError(
            f"model={type(given).__name__} of shape {given.shape}: a tensor never changes; give the tf.Variable"
        )
    what = (
        "None" if given is None else in_brief(given) if isinstance(given, str | int | float) else type(given).__name__
    )
    raise ArgumentError(f"model={what}: expected a tf.Module, a Keras model, or tf.Variables in a list or dict")


def is_variable(thing: Any) -> bool:
    """A tf.Variable, or one of Keras 3 that holds a tf.Variable."""
    return isinstance(thing, tf.Variable) or isinstance(getattr(thing, "value", None), tf.Variable)


def is_keras(thing: Any) -> bool:
    """A layer or model, of Keras 3 or tf_keras."""
    return any(cls.__name__ == "Layer" and cls.__module__.partition(".")[0] in KERAS for cls in type(thing).__mro__)


def key_of(variable: Any) -> int:
    """The same number for a Keras variable and the tf.Variable that it holds."""
    return _key(variable)


def _key(variable: Any) -> int:
    held = getattr(variable, "value", None)
    return id(held if isinstance(held, tf.Variable) else variable)


def _sightings(thing: Any, path: str, owner: Any, above: frozenset[int]) -> Iterator[_Seen]:
    """Every sighting in order; `path` is that of `thing`, `owner` the object of which it is an attribute."""
    if is_variable(thing):
        yield _Seen(path or own_name(thing) or "variable", thing, owner)
    elif id(thing) in above:
        return
    elif is_keras(thing):
        yield from _in_keras(thing, path, above | {id(thing)})
    elif isinstance(thing, tf.Module):
        yield from _in_module(thing, path, above | {id(thing)})
    elif isinstance(thing, Mapping):
        for key, each in thing.items():
            yield from _sightings(each, _joined(path, str(key)), owner, above | {id(thing)})
    elif isinstance(thing, list | tuple):
        for place, each in enumerate(thing):
            name = own_name(each) if owner is None and is_variable(each) else ""
            yield from _sightings(each, _joined(path, name or str(place)), owner, above | {id(thing)})


def _in_module(module: tf.Module, path: str, above: frozenset[int]) -> Iterator[_Seen]:
    found: set[int] = set()
    hidden = {"_self_setattr_tracking", *getattr(module, "_TF_MODULE_IGNORED_PROPERTIES", ())}
    for name, value in list(vars(module).items()):
        if name not in hidden:
            for seen in _sightings(value, _joined(path, name), module, above):
                found.add(_key(seen.variable))
                yield seen
    for variable in module.variables:  # kept where no attribute leads
        if _key(variable) not in found:
            yield _Seen(_joined(path, own_name(variable) or "variable"), variable, module)


def _in_keras(layer: Any, path: str, above: frozenset[int]) -> Iterator[_Seen]:
    children = [child for child in layer._flatten_layers(recursive=False, include_self=False) if is_keras(child)]
    inside = {_key(variable) for child in children for variable in child.weights}
    learned = {_key(variable) for variable in layer.trainable_weights}
    frozen = not layer.trainable
    for variable in layer.weights:
        if _key(variable) not in inside:
            _check_backend(variable, layer)
            name = own_name(variable) or "variable"
            was_learned = frozen or _key(variable) in learned
            yield _Seen(_joined(path, name), variable, layer, was_learned)
    for child, name in zip(children, layer_names(children), strict=True):
        if id(child) not in above:
            yield from _in_keras(child, _joined(path, name), above | {id(child)})


def _check_backend(variable: Any, layer: Any) -> None:
    if not is_variable(variable):
        held = type(getattr(variable, "value", variable)).__name__
        raise ModelError(
            f"{type(layer).__name__} holds weights of {held}: Keras runs on another backend than TensorFlow here; "
            "use normkit.keras"
        )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _united(sightings: list[_Seen], taken: set[str]) -> Located:
    """One Located of all places of a variable, under names that no other has; an embedding if one of them is."""
    names: list[str] = []
    for seen in sightings:
        if seen.path not in names:
            names.append(unused(seen.path, taken))
            taken.add(names[-1])
    params = [_param(seen) for seen in sightings]
    main = next((param for param in params if param.role == "embedding"), params[0])
    return Located(replace(main, name=names[0], aliases=tuple(names[1:])), sightings[0].variable)


def _param(seen: _Seen) -> Param:
    shape = tuple(int(size) for size in seen.variable.shape)
    owner = seen.owner
    kind = kind_of(owner, seen.path.rpartition(".")[2], shape, learned=seen.learned)
    return Param(
        name=seen.path,
        shape=shape,
        dtype=tf.as_dtype(seen.variable.dtype).name,
        role=kind.role,
        layer="" if owner is None else type(owner).__name__,
        out_axes=kind.out_axes,
        in_axes=kind.in_axes,
        trainable=bool(seen.variable.trainable) and seen.learned and kind.role != "buffer",
        rule=kind.rule,
        layer_type=None if owner is None else type(owner),
    )
