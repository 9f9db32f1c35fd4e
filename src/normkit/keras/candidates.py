"""Which weights of a layer are to be normalized, each with the axes that its g keeps; or why one cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.groups import Per, kept_axes
from normkit.keras.effective import attributes_of
from normkit.keras.inside import layers_in, weights_of
from normkit.keras.walk import Located, walk
from normkit.select import select as select_params
from normkit.select.rules import parse


class Chosen(NamedTuple):
    """A weight and the axes that its g keeps."""

    located: Located
    kept: tuple[int, ...]


def to_normalize(
    model: Any, select: Any, per: Per, *, default: str | tuple[str, ...] = "kernel", frozen: bool = False
) -> list[Chosen]:
    """Those weights of a model or layer that a rule takes; `frozen` ones too.

    Raises: ArgumentError for a rule that reaches nothing, and for axes that a weight or its layer does not have;
    ModelError for a weight that is normalized already, shared, constrained, quantized, or in a list.
    """
    whole = [item for item in walk(model) if item.param.part in ("whole", "effective")]
    params = [replace(each, trainable=each.role != "buffer") if frozen else each for each in (i.param for i in whole)]
    names = {param.name for param in select_params(params, select, default=default).chosen}
    taken = [item for item in whole if item.param.name in names]
    if not taken:
        words = default if isinstance(default, str) else " or ".join(default)
        raise ArgumentError(
            f"no weight here has the role {words}: name the weights to normalize, as in "
            f"select={next((item.param.name.rpartition('.')[2] for item in whole), 'kernel')!r}"
        )
    for item in taken:
        _refuse_unusable(item)
        _refuse_shared(item, model)
    return [Chosen(item, tuple(sorted(kept_axes(per, item.param.shape, item.param)))) for item in taken]


def is_named(rule: Any) -> bool:
    """Does a rule name what it takes, by more than roles?"""
    return bool(parse(rule).terms)


def _refuse_unusable(item: Located) -> None:
    param, variable, layer = item.param, item.variable, item.layer
    said = f"{param.name} of shape {param.shape}"
    if param.part == "effective":
        raise ModelError(f"{said} is already normalized; leave it out of select=")
    if mode := layer.quantization_mode or ("" if "float" in param.dtype else param.dtype):
        raise ModelError(f"{said} is quantized ({mode}); normalize it before it is quantized")
    if getattr(layer, "lora_enabled", False):
        raise ModelError(
            f"{said} is adapted by LoRA: {type(layer).__name__} {layer.name} adds other weights to it; normalize "
            "a layer without LoRA"
        )
    if variable.constraint is not None:
        kind = type(variable.constraint).__name__
        raise ModelError(f"{said} has the constraint {kind}, which is of a variable; leave out the layer's constraint")
    attributes_of(layer, variable)


def _refuse_shared(item: Located, model: Any) -> None:
    """A layer may be in several places; a weight of two layers cannot be two things."""
    owners = [each for each in layers_in(model) if any(own is item.variable for own, _ in weights_of(each))]
    if len({id(owner) for owner in owners}) > 1:
        names = " and ".join(dict.fromkeys(f"{type(owner).__name__} {owner.name}" for owner in owners))
        raise ModelError(
            f"{item.param.name} of shape {item.param.shape} is shared by {names}, and stays one variable; leave it out "
            "of select="
        )


def texts_of(select: Any) -> list[str] | None:
    """A rule as a layer's configuration can hold it.

    Raises: ArgumentError for a class or a function.
    """
    if select is None:
        return None
    items = list(select) if isinstance(select, list | tuple | set | frozenset) else [select]
    if wrong := next((item for item in items if not isinstance(item, str)), None):
        raise ArgumentError(
            f"select={in_brief(wrong)}: a layer's weights are chosen by names or roles, as text that can be saved: "
            "select='recurrent_kernel'"
        )
    parse(items)
    return items
