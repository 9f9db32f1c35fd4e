"""The arithmetic of each kind of decay on lists of tensors: `normkit.decay.decayed` in torch's own fused operations.

`taken` is the share of a weight, a Python number or a tensor of one entry on the tensors' device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn

from normkit.groups import Per
from normkit.lengths import norm_except_dim
from normkit.ops.torch import Cache, keep, scale, sums, take_cautiously
from normkit.ops.torch_math import WIDE
from normkit.types import SUMS

SMALL = 1 << 14  # entries; sums of smaller tensors are made in new memory, all by one call
_SQ = SUMS.index("sq")
_OWN = {Tensor, nn.Parameter}
_ON_CPU, _SHAPE = attrgetter("is_cpu"), attrgetter("shape")


def shrink(weights: Sequence[Tensor], taken: Any) -> None:
    """w <- w - s w"""
    factor = 1 - taken
    if not isinstance(factor, Tensor) and all(map(_ON_CPU, weights)):
        factor = torch.tensor(factor, dtype=_widest(weights))  # the same bits; a number is made one for each weight
    torch._foreach_mul_(list(weights), factor)


def _widest(weights: Sequence[Tensor]) -> torch.dtype:
    """What torch itself works in, with a number beside these weights."""
    return torch.float64 if any(weight.dtype == torch.float64 for weight in weights) else torch.float32


def toward(weights: Sequence[Tensor], references: Sequence[Tensor], taken: Any) -> None:
    """w <- w - s (w - reference)"""
    if not isinstance(taken, Tensor):
        torch._foreach_lerp_(list(weights), list(references), taken)
        return
    apart = torch._foreach_sub(list(weights), list(references))
    torch._foreach_mul_(apart, taken)
    torch._foreach_sub_(list(weights), apart)


def toward_length(
    weights: Sequence[Tensor], lengths: Sequence[Any], pers: Sequence[Per], taken: Any, cache: Cache | None = None
) -> None:
    """w <- w - s (1 - length / |w|) w; a group of zeros stays."""
    if not isinstance(taken, Tensor) and set(pers) == {"tensor"} and are_plain(weights):
        cache = Cache() if cache is None else cache
        found = _lengths(weights, cache)
        factors = [1 - taken * (1 - goal / now) if now else 1.0 for goal, now in zip(lengths, found, strict=True)]
        if all(weight.dtype in WIDE for weight in weights):
            scale(weights, factors, cache)
        else:
            torch._foreach_mul_(list(weights), torch.tensor(factors, dtype=_widest(weights)).unbind())
        return
    for weight, length, per in zip(weights, lengths, pers, strict=True):
        now = length_of(weight, per)
        zero = now == 0
        excess = torch.where(zero, 0.0, 1 - length / torch.where(zero, 1.0, now))
        weight.mul_(1 - taken * excess)


def _lengths(weights: Sequence[Tensor], cache: Cache) -> list[float]:
    """The length of each whole tensor in a CPU's memory, in one compiled pass over all of them."""
    squares = sums(weights, cache).wait()[0][_SQ]
    return [
        math.sqrt(square) if 0 < square < math.inf else float(length_of(weight, "tensor"))  # beyond squares, or none
        for square, weight in zip(squares.tolist(), weights, strict=True)
    ]


def length_of(weight: Tensor, per: Per) -> Tensor:
    """The length of each group, wide, with size 1 along the axes not kept."""
    wide = weight.detach()
    exact: Tensor = norm_except_dim(wide if wide.dtype in WIDE else wide.float(), per)
    return exact


def is_plain(tensor: Tensor) -> bool:
    """Does it lie in one piece in the CPU's memory?"""
    return are_plain([tensor])


def are_plain(tensors: Sequence[Tensor]) -> bool:
    """Do they all? Asked of hundreds at each step, hence the `map`."""
    return {*map(type, tensors)} <= _OWN and all(map(_ON_CPU, tensors)) and all(map(Tensor.is_contiguous, tensors))


class Copies:
    """The weights as they stood, and what is taken of them after the step: kind "cautious".

        w <- w - s w_old          where (w - w_old) w_old <= 0

    The memory, as much as the weights', is made once and used again.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.of, self._olds = list(weights), [torch.empty_like(weight) for weight in weights]
        pairs = list(zip(self.of, self._olds, strict=True))
        plain = [pair for pair in pairs if is_plain(pair[0]) and pair[0].dtype in WIDE]
        quick = {id(weight) for weight, _ in plain}
        self._plain, self._plain_olds = [weight for weight, _ in plain], [old for _, old in plain]
        self._others = [pair for pair in pairs if id(pair[0]) not in quick]
        self._shapes, self._cache = list(map(_SHAPE, self.of)), Cache()

    def take(self) -> None:
        """The weights now."""
        if self._plain:
            keep(self._plain, self._plain_olds, self._cache)
        if self._others:
            torch._foreach_copy_([old for _, old in self._others], [weight for weight, _ in self._others])

    def serves(self, weights: Sequence[Tensor]) -> bool:
        """Are these the very weights, in their shapes, and those for the compiled loop still each in one piece?"""
        return (
            len(weights) == len(self.of)
            and all(map(is_, weights, self.of))
            and all(map(Tensor.is_contiguous, self._plain))
            and list(map(_SHAPE, self.of)) == self._shapes
        )

    def cautious(self, weights: Sequence[Tensor], taken: Any) -> None:
        """Take what is to be taken of these weights, all or some of those copied."""
        if self.serves(weights):
            if self._plain:
                take_cautiously(self._plain, self._plain_olds, float(taken), self._cache)
            pairs = self._others
        else:
            known = self.olds()
            pairs = [(weight, known[id(weight)]) for weight in weights]
        if pairs:
            torch._foreach_sub_([now for now, _ in pairs], [_share(now, old, taken) for now, old in pairs])

    def olds(self) -> dict[int, Tensor]:
        """The copies, by the weights' ids."""
        return {id(weight): old for weight, old in zip(self.of, self._olds, strict=True)}


def _share(now: Tensor, old: Tensor, taken: Any) -> Tensor:
    """What is taken of `now`: s w_old where the step did not move it away from 0."""
    if old.dtype not in WIDE:
        now, old = now.float(), old.float()
    return (now - old).mul_(old).le_(0).mul_(old).mul_(taken)
