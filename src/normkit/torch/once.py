"""Layers that ask for their weights several times in one forward: each is worked out once, and kept no longer.

Recurrent layers ask four times and put the answers into a list of their own; attention asks up to five times. While
such a layer runs forward, its weights stand in a place that belongs to the running thread alone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

ASKS_OFTEN = (nn.RNNBase, nn.MultiheadAttention)


class _Running(threading.local):
    """What this thread runs forward now: {id of the layer: {name: weight}}."""

    def __init__(self) -> None:
        self.layers: dict[int, dict[str, Tensor]] = {}


_RUNNING = _Running()


def asked_once(cls: type[nn.Module], plain: type[nn.Module]) -> None:
    """Give `cls`, the class that torch made of `plain` for one layer, a forward that works weights out once."""
    if issubclass(plain, ASKS_OFTEN):
        cls.forward = _forward(plain.forward)
    if issubclass(plain, nn.RNNBase):
        for name, member in _RECURRENT.items():
            setattr(cls, name, member)


def kept_while_running(name: str, compute: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """`compute`, asked once per forward."""

    def get(self: nn.Module) -> Tensor:
        if torch.compiler.is_compiling() or (held := _RUNNING.layers.get(id(self))) is None:
            return compute(self)
        if name not in held:
            held[name] = compute(self)
        return held[name]

    return get


def _forward(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)  # what asks for its arguments sees the layer's own
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or id(self) in _RUNNING.layers:
            return plain(self, *args, **kwargs)
        _RUNNING.layers[id(self)] = {}
        try:
            return plain(self, *args, **kwargs)
        finally:
            del _RUNNING.layers[id(self)]

    return forward


# --- recurrent layers: the list of weights that they keep is made anew each time it is asked for ----------------------


def _flat_weights(self: Any) -> list[Tensor | None]:
    return [getattr(self, name, None) for name in self._flat_weights_names]


def _ignore(self: Any, value: object = None) -> None:
    """For what torch does to the list: there is none."""


def _gone() -> weakref.ref[Any]:
    return weakref.ref(_Running())


def emptied(layer: nn.Module) -> None:
    """Leave in a recurrent layer no list of weights; torch itself will make one again when this class is gone."""
    if isinstance(layer, nn.RNNBase) and "_flat_weights_names" in layer.__dict__:
        names = layer._flat_weights_names
        layer.__dict__["_flat_weights"] = [None] * len(names)
        layer.__dict__["_flat_weight_refs"] = [_gone()] * len(names)


_RECURRENT: dict[str, Any] = {
    "_flat_weights": property(_flat_weights, _ignore),
    "_update_flat_weights": _ignore,
    "_weights_have_changed": lambda self: False,
    "_init_flat_weights": emptied,
    "flatten_parameters": _ignore,
}
