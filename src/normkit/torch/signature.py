"""Has the model or an optimizer changed since it was walked? Asked at every record, so it must cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter, is_
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

LAZY = (UninitializedParameter, UninitializedBuffer)
_FLAGS = attrgetter("requires_grad", "dtype")


class Signature:
    """Which tensors and layers there were; `changed()` says whether any came, went or changed.

    It keeps the very dictionaries in which torch's modules hold their parameters and children, so that asking builds
    two lists and no more. Two signatures are equal when they saw the same objects in the same state. Buffers count
    only with `buffers=True`: many a layer replaces its own at each step.
    """

    __hash__ = None  # type: ignore[assignment]  # it compares by what is there now

    def __init__(self, model: nn.Module | None, optimizers: Iterable[Any] = (), *, buffers: bool = False) -> None:
        kinds = ("_parameters", "_modules", "_buffers") if buffers else ("_parameters", "_modules")
        dicts = [getattr(module, kind) for module in (model.modules() if model is not None else ()) for kind in kinds]
        self._empty = [held for held in dicts if not held]  # a layer without children may get one: so it is watched
        self._views = [held.values() for held in dicts if held]
        self._optimizers = list(optimizers)
        self._held = self._now()
        self._tensors = list({id(held): held for held in self._held if isinstance(held, Tensor)}.values())
        self._lazy = [tensor for tensor in self._tensors if isinstance(tensor, LAZY)]
        self._real = [tensor for tensor in self._tensors if not isinstance(tensor, LAZY)]
        self._seen = self._forms()

    def changed(self) -> bool:
        """Is anything different from what it was when this was made?"""
        return any(self._empty) or not self._same(self._now(), self._forms())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._same(other._held, other._seen)

    def _forms(self) -> tuple[list[Any], list[int]]:
        """`model.half()` and `p.data = ...` leave the object in its place and change what it holds."""
        return list(map(_FLAGS, self._tensors)), list(map(Tensor.numel, self._real))

    def _same(self, held: list[Any], forms: tuple[list[Any], list[int]]) -> bool:
        if forms != self._seen or len(held) != len(self._held) or not all(map(is_, held, self._held)):
            return False
        return all(isinstance(tensor, LAZY) for tensor in self._lazy)  # one that became real changed only its class

    def _now(self) -> list[Any]:
        groups = (group["params"] for optimizer in self._optimizers for group in optimizer.param_groups)
        return list(chain(chain.from_iterable(self._views), chain.from_iterable(groups)))
