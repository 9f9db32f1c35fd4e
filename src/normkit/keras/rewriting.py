"""Whole models with normalized weights, and back: new models, made from the configuration of the old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from normkit.errors import ModelError
from normkit.groups import Per
from normkit.keras.candidates import Chosen, to_normalize
from normkit.keras.copying import copy_state
from normkit.keras.inside import is_graph, layers_in
from normkit.keras.walk import check_model, walk
from normkit.keras.wrapper import WeightNorm
from normkit.lengths import checked

MARK = "normkit>WeightNorm"  # as a configuration calls the class


def weight_norm(model: Any, select: Any = None, per: Per = "out", p: float = 2) -> Any:
    """A new model of the same function, with the chosen weights normalized: w = g v / |v|_p, g and v trained.

    model   a Sequential or Functional model; models in it are made anew, too, and what is shared stays shared
    select  which weights (docs: select); default: kernels, so no embedding
    per     "out" (one length per output unit), "in", "tensor", or the axes that g keeps
    p       the kind of length: a number from 1 to infinity

    The new model is not compiled. Its layers bear the names of the old ones, and so do its weights in `norms`,
    `explain` and `record`: `dense.kernel` is what the layer applies, `dense.kernel.g` and `dense.kernel.v` are trained.
    `model` is left as it is. Variables change: what Keras is told of them (`exclude_from_weight_decay`) is about
    `kernel.g` and `kernel.v`, by name `kernel_g` and `kernel_v`.

    Raises: ArgumentError for what is no model, a rule that reaches nothing, axes that a weight does not have;
    ModelError for a subclassed model, one without weights yet, and a weight that is normalized already, shared by two
    layers, constrained, quantized, adapted by LoRA, or in a list.
    Source: Salimans & Kingma 2016, arXiv:1602.07868.
    """
    _refuse_subclassed(model, "wrap the layers in it where it makes them, as in self.head = nk.WeightNorm(Dense(10))")
    kind = checked(p)
    wanted = _by_leaf(model, to_normalize(model, select, per))

    def made(layer: Any) -> Any:
        plain = _like(layer)
        return WeightNorm(plain, wanted[id(layer)], per, kind) if id(layer) in wanted else plain

    return _anew(model, made)


def remove_weight_norm(model: Any) -> Any:
    """A new model of the same function with plain layers: each weight is what g and v made of it.

    The new model is not compiled; `model` is left as it is.
    Raises: ArgumentError for what is no model, ModelError for a subclassed one, and where no weight is normalized.
    """
    _refuse_subclassed(model, "use what fold() of its WeightNorm layers gives")
    if not any(isinstance(layer, WeightNorm) for layer in layers_in(model)):
        raise ModelError(f"{model.name} has no normalized weight: no layer in it is a WeightNorm")
    return _anew(model, _plain)


def leaves_of(model: Any) -> Iterator[Any]:
    """The layers of a model, those of Sequential and Functional models in it instead of these."""
    for layer in model.layers:
        if is_graph(layer):
            yield from leaves_of(layer)
        else:
            yield layer


def _refuse_subclassed(model: Any, advice: str) -> None:
    check_model(model)
    if not is_graph(model):
        kind = "model" if isinstance(model, keras.Model) else "layer"
        raise ModelError(
            f"{type(model).__name__} is a {kind} of its own class, which cannot be made anew with other layers: "
            f"{advice}"
        )


def _by_leaf(model: Any, taken: list[Chosen]) -> dict[int, list[str]]:
    """{id of a layer: the names in it of its weights that are taken}."""
    variables = {id(each.located.variable) for each in taken}
    wanted: dict[int, list[str]] = {}
    for leaf in leaves_of(model):
        names = [each.param.name for each in (walk(leaf) if leaf.weights else []) if id(each.variable) in variables]
        if names:
            wanted[id(leaf)] = names
    return wanted


def _anew(model: Any, made: Callable[[Any], Any]) -> Any:
    with _uncompiled(model):
        clone = keras.models.clone_model(model, clone_function=made, recursive=True)
    copy_state(model, clone)
    return clone


@contextmanager
def _uncompiled(model: Any) -> Iterator[None]:
    """Keras compiles a clone as its model is, with losses and optimizer made from their configuration."""
    compiled = [each for each in layers_in(model) if getattr(each, "compiled", False)]
    try:
        for each in compiled:
            each.compiled = False
        yield
    finally:
        for each in compiled:
            each.compiled = True


def _like(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())


def _plain(layer: Any) -> Any:
    """The like of a layer, without a WeightNorm, wherever it is in it."""
    if isinstance(layer, WeightNorm):
        return type(layer.layer).from_config({**layer.layer.get_config(), "name": layer.name})
    operation = not isinstance(layer, keras.layers.Layer)  # what + of two tensors is in a Functional model
    if operation or not any(isinstance(each, WeightNorm) for each in layers_in(layer)):
        return _like(layer)
    return keras.saving.deserialize_keras_object(_without(keras.saving.serialize_keras_object(layer)))


def _without(config: Any) -> Any:
    """A configuration with that of the layer in the place of each WeightNorm's."""
    if isinstance(config, Mapping):
        if config.get("registered_name") == MARK:
            inner = _without(config["config"]["layer"])
            return {**inner, "config": {**inner["config"], "name": config["config"]["name"]}}
        return {key: _without(value) for key, value in config.items()}
    return [_without(each) for each in config] if isinstance(config, list) else config
