"""Every weight of a Keras model, each once, under one name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.keras.effective import Effective, Unseen, effective_in, settled
from normkit.keras.inside import children_of, weights_of
from normkit.keras.layers import kind_of
from normkit.keras.names import layer_names, weight_names
from normkit.select import select
from normkit.select.kinds import Kind
from normkit.types import Param, Part


@dataclass(frozen=True)
class Located:
    """A `Param`, its variable, and the layer that owns it; for a worked out weight what stands there instead.

    On JAX the variable holds a value only after `Callback.model` has been asked for.
    """

    param: Param
    variable: Any
    layer: Any = None

    def value(self) -> Any:
        """The tensor now, of the backend's own type."""
        return settled(self.variable)


def walk(model: Any) -> list[Located]:
    """All weights of `model` in its own order, those that are not trained among them.

    Names are the layers' names joined by dots, without the model's own; those that Keras numbered are numbered anew
    within their parent, so that two builds in one process agree. A layer or a variable used in several places is one
    `Param`: the first name in model order, the others its aliases. A normalized weight bears its plain name, its parts
    are `<name>.g` and `<name>.v`.
    Raises: ArgumentError where `model` is no Keras model, ModelError where it has no weights yet.
    """
    check_model(model)
    places: dict[int, list[Located]] = {}
    for located in _in_layer(model, "", frozenset(), _trained(model)):
        places.setdefault(id(located.variable), []).append(located)
    if not places:
        raise ModelError(f"{type(model).__name__} has no weights yet: build it, or run one batch through it, first")
    return [_united(sightings) for sightings in places.values()]


def chosen(everything: Sequence[Located], rule: Any, *, again: bool = False) -> list[str]:
    """Names of those that a rule takes; by default what is trainable.

    Raises: ArgumentError for one that takes nothing, unless a recording goes on (`again`) in which it has taken some.
    """
    try:
        found = select([item.param for item in everything], rule, default="trainable").chosen
    except ArgumentError:
        if not again:
            raise
        return []
    return [param.name for param in found]


def check_model(model: Any) -> None:
    """Raises: ArgumentError where `model` is no Keras model or layer."""
    if isinstance(model, keras.layers.Layer):
        return
    if isinstance(model, type):
        raise ArgumentError(f"model={model.__name__} is a class; give an instance, such as {model.__name__}(...)")
    if any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(model).__mro__):
        name = type(model).__name__
        raise ArgumentError(
            f"model={name} is of tf_keras (Keras 2): expected a keras.Model; use normkit.tensorflow for it"
        )
    given = in_brief(model) if isinstance(model, str | int | float | None) else type(model).__name__
    raise ArgumentError(f"model={given}: expected a keras.Model, as in nk.norms(model)")


def _trained(model: Any) -> set[int]:
    return {id(variable) for variable in model.trainable_variables}


def _in_layer(layer: Any, prefix: str, above: frozenset[int], trained: set[int]) -> Iterator[Located]:
    """Every sighting in model order; a layer reached on a second path is seen again, which makes its aliases."""
    own = owned(layer)
    for (variable, learned), name in zip(own, weight_names(layer, [each for each, _ in own]), strict=True):
        yield from _located(layer, prefix + name, name, variable, learned=learned, trained=trained)
    above |= {id(layer)}
    children = [child for child in children_of(layer) if id(child) not in above]
    if isinstance(layer, Unseen):
        for child in children:
            yield from _in_layer(child, prefix, above, trained)
        return
    for child, name in zip(children, layer_names(layer, children), strict=True):
        yield from _in_layer(child, f"{prefix}{name}.", above, trained)


def owned(layer: Any) -> list[tuple[Any, bool]]:
    """As `weights_of`, and a worked out weight in the place of its g and v."""
    weights = effective_in(layer)
    whole, hidden = {id(each.g): each for each in weights}, {id(each.v) for each in weights}
    return [(whole.get(id(each), each), learned) for each, learned in weights_of(layer) if id(each) not in hidden]


def _located(layer: Any, path: str, name: str, variable: Any, *, learned: bool, trained: set[int]) -> Iterator[Located]:
    kind = kind_of(layer, name, _shape(variable), learned=learned)
    if not isinstance(variable, Effective):
        yield _one(layer, path, variable, kind, "whole", trained=id(variable) in trained)
        return
    parts: tuple[tuple[Any, Part], ...] = ((variable.g, "g"), (variable.v, "v"))
    yield _one(layer, path, variable, kind, "effective", trained=any(id(each) in trained for each, _ in parts))
    for each, part in parts:
        yield _one(layer, f"{path}.{part}", each, kind, part, trained=id(each) in trained)


def _one(layer: Any, path: str, variable: Any, kind: Kind, part: Part, *, trained: bool) -> Located:
    param = Param(
        name=path,
        shape=_shape(variable),
        dtype=str(keras.backend.standardize_dtype(variable.dtype)),
        role=kind.role,
        layer=type(layer).__name__,
        out_axes=kind.out_axes,
        in_axes=kind.in_axes,
        trainable=trained and kind.role != "buffer",
        part=part,
        rule=kind.rule,
        layer_type=type(layer),
    )
    return Located(param, variable, layer)


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in variable.shape)


def _united(sightings: list[Located]) -> Located:
    """One Located of all places of a variable: what it is, and its name, from the place that says it best."""
    main = min(sightings, key=_doubt)  # the first of equals
    names = dict.fromkeys(each.param.name for each in sightings)
    aliases = tuple(name for name in names if name != main.param.name)
    return replace(main, param=replace(main.param, aliases=aliases)) if aliases else main


def _doubt(place: Located) -> int:
    """How well a place says what its variable is: an embedding, a known layer, a wrapper around one, a buffer."""
    role = place.param.role
    return 0 if role == "embedding" else 3 if role == "buffer" else 1 if place.param.rule.startswith("layer ") else 2
