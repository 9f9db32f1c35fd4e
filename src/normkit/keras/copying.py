"""The state of one layer or model into another of the same form, whichever of their weights are normalized."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from normkit.errors import ModelError
from normkit.keras.effective import Effective, all_effective, settled


def copy_state(source: Any, target: Any) -> None:
    """Every variable, seeds too, and whether it is trained. A weight that both have normalized keeps its g and v."""
    given, taking = plain_variables(source), plain_variables(target)
    shapes = [[tuple(each.shape) for each in variables] for variables in (given, taking)]
    if shapes[0] != shapes[1]:
        raise ModelError(
            f"{type(source).__name__} {source.name} made anew from its configuration has {len(taking)} variables of "
            f"other shapes than its {len(given)}; its get_config() must say all that it was made with"
        )
    for old, new in zip(given, taking, strict=True):
        if isinstance(old, Effective) and isinstance(new, Effective):
            _copy(old.v, new.v)
            _copy(old.g, new.g)
        else:
            _copy(old, new)


def plain_variables(layer: Any) -> list[Any]:
    """All variables of a layer in its order, a normalized weight in the place of its g and v."""
    weights = all_effective(layer)
    whole, hidden = {id(each.g): each for each in weights}, {id(each.v) for each in weights}
    return [whole.get(id(each), each) for each in layer.variables if id(each) not in hidden]


def _copy(old: Any, new: Any) -> None:
    """By way of NumPy: on JAX a training step takes the very array away from who holds it besides."""
    new.assign(np.array(keras.ops.convert_to_numpy(settled(old))))
    if new.trainable != old.trainable:
        new.trainable = old.trainable
