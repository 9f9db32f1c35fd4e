"""`set_weight`: give a weight a value that lasts, also where the layer works it out from g and v."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError, ModelError, StateError, in_brief
from normkit.torch.arguments import checked_module
from normkit.torch.effective import computed_weights
from normkit.torch.normed import normed
from normkit.torch.signature import LAZY

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def set_weight(module: M, value: Any | Callable[[Tensor], Any], name: str = "weight") -> M:
    """Make `value` the layer's weight `name`, and return the layer.

    `value` is an array or tensor of the weight's shape, or a function that fills a tensor, such as
    `nn.init.kaiming_normal_`: on a weight-normed layer that one alone would fill a temporary and be lost. The numbers
    go into the parameters as they stand (g and v of a weight-normed layer), so an optimizer goes on with them.

    Raises: ArgumentError for a name that the layer does not have, a value of another shape or kind; ModelError for a
    weight that is computed in another way; StateError for a lazy layer that has seen no batch.

    >>> layer = set_weight(nn.Linear(2, 1), [[3.0, 4.0]])
    >>> layer.weight.tolist()
    [[3.0, 4.0]]
    """
    checked_module(module, "set_weight")
    wrapped = next((each for each in normed(module) if each.layer is module and each.name == name), None)
    now = wrapped.compute() if wrapped is not None else _plain(module, name)
    made = _made(value, now.detach(), name)
    if wrapped is None:
        now.copy_(made)
    else:
        wrapped.set(made)
    return module


def _plain(module: nn.Module, name: str) -> Tensor:
    """The parameter itself."""
    found = module._parameters.get(name)
    if isinstance(found, LAZY):
        raise StateError(f"{name} of {type(module).__name__} has no shape yet: run one batch through it first")
    if found is not None:
        return found
    if any(weight.name == name for weight in computed_weights(module)):
        raise ModelError(f"{name} of {type(module).__name__} is computed by a parametrization that is no weight norm")
    own = [key for key, tensor in module._parameters.items() if tensor is not None]
    own = [*own, *(each.name for each in normed(module) if each.layer is module)]
    advice = f"it has {', '.join(own)}" if own else "give the layer that owns it, as in set_weight(model.fc, ...)"
    raise ArgumentError(f"{type(module).__name__} has no parameter {in_brief(name)}: {advice}")


def _made(value: Any, now: Tensor, name: str) -> Tensor:
    """The tensor that `value` is or makes, in the weight's shape."""
    if callable(value) and not isinstance(value, Tensor):
        room = now.clone(memory_format=torch.preserve_format)
        result = value(room)
        value = room if result is None else result
    return tensor_for(value, now, name)


def tensor_for(value: Any, now: Tensor, name: str) -> Tensor:
    """`value` as a tensor, in the shape of `now`.

    Raises: ArgumentError for another shape, for no array, for complex numbers that would lose a part.
    """
    try:
        made = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError):
        raise ArgumentError(
            f"{name} is set to {in_brief(value)}: expected an array, a tensor, or a function that fills one"
        ) from None
    if made.shape != now.shape:
        raise ArgumentError(f"{name} has shape {tuple(now.shape)}, and what it is set to {tuple(made.shape)}")
    if made.is_complex() and not now.is_complex():
        raise ArgumentError(f"{name} is {now.dtype}, and what it is set to {made.dtype}: its imaginary part would go")
    return made.detach()
