"""Which optimizers make the steps of a Keras model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import takewhile
from types import CodeType, FunctionType
from typing import Any

import keras

from normkit.keras.ring_hooks import inner_of, leaves_of


def optimizers_of(model: Any, *, idle: bool = False) -> list[Any]:
    """The optimizer that the model is compiled with, or those inside one made of several; none before `compile`.

    A model that has optimizers of its own makes its steps with them (a GAN, as it is usually written): then they are
    meant, in the order of their attributes, and the one of `compile` only where the model's own code speaks of it. One
    that is known to be `idle` is left out.
    """
    compiled = getattr(model, "optimizer", None)
    given = [] if compiled is None else leaves_of(inner_of(compiled))
    own = [each for each in _held(model) if all(each is not other for other in given)]
    return own if idle or (own and not _speaks_of_it(model)) else [*given, *own]


def _held(model: Any) -> list[Any]:
    held = [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]
    return list({id(leaf): leaf for each in held for leaf in leaves_of(inner_of(each))}.values())


def _speaks_of_it(model: Any) -> bool:
    """Does a method that is not Keras' own take `self.optimizer`?"""
    own = takewhile(lambda kind: not kind.__module__.startswith("keras."), type(model).__mro__)
    methods = [inspect.unwrap(method) for kind in own for method in vars(kind).values() if callable(method)]
    codes = [method.__code__ for method in methods if isinstance(method, FunctionType)]
    return any("optimizer" in code.co_names for outer in codes for code in _with_inner(outer))


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _with_inner(inner)
