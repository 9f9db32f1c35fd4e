"""The arithmetic of each kind of decay on lists of tensors: `normkit.decay.decayed` in torch's own fused operations.

`taken` is the share of a weight, a Python number or a tensor of one entry on the tensors' device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from normkit.groups import Per
from normkit.lengths import norm_except_dim
from normkit.ops.torch import Cache, sums
from normkit.ops.torch_math import WIDE
from normkit.types import SUMS

SMALL = 1 << 14  # entries; smaller tensors are worked on together, in one flat memory
CHUNK = 1 << 17  # entries of a larger one at a time, which stay in a processor's cache
ALONE = 1 << 15  # entries for which torch wakes no second thread
_SQ = SUMS.index("sq")


def shrink(weights: Sequence[Tensor], taken: Any) -> None:
    """w <- w - s w"""
    factor = 1 - taken
    if not isinstance(factor, Tensor) and all(weight.device.type == "cpu" for weight in weights):
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
    if not isinstance(taken, Tensor) and all(p == "tensor" and is_plain(w) for w, p in zip(weights, pers, strict=True)):
        found = _lengths(weights, cache)
        factors = [1 - taken * (1 - goal / now) if now else 1.0 for goal, now in zip(lengths, found, strict=True)]
        torch._foreach_mul_(list(weights), torch.tensor(factors, dtype=_widest(weights)).unbind())
        return
    for weight, length, per in zip(weights, lengths, pers, strict=True):
        now = length_of(weight, per)
        zero = now == 0
        excess = torch.where(zero, 0.0, 1 - length / torch.where(zero, 1.0, now))
        weight.mul_(1 - taken * excess)


def _lengths(weights: Sequence[Tensor], cache: Cache | None) -> list[float]:
    """The length of each whole tensor in a CPU's memory, in one compiled pass over all of them."""
    squares = sums([weight.detach() for weight in weights], cache).wait()[0][_SQ]
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
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.is_contiguous()


class Copies:
    """The weights as they stood, and what is taken of them after the step: kind "cautious".

        w <- w - s w_old          where (w - w_old) w_old <= 0

    The memory, as much as the weights', is made once and used again.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.of = list(weights)
        small = [w for w in self.of if is_plain(w) and w.numel() <= SMALL]
        self._packs = [_Pack([w for w in small if w.dtype == dtype]) for dtype in dict.fromkeys(w.dtype for w in small)]
        packed = set(map(id, small))
        self._large = [(w, torch.empty_like(w)) for w in self.of if is_plain(w) and id(w) not in packed]
        self._other = [(w, torch.empty_like(w)) for w in self.of if not is_plain(w)]

    def take(self) -> None:
        """The weights now."""
        for pack in self._packs:
            pack.take()
        if apart := [*self._large, *self._other]:
            torch._foreach_copy_([old for _, old in apart], [weight for weight, _ in apart])

    def serves(self, weights: Sequence[Tensor]) -> bool:
        """Are these the very weights?"""
        return len(weights) == len(self.of) and all(map(is_, weights, self.of))

    def cautious(self, weights: Sequence[Tensor], taken: Any) -> None:
        """Take what is to be taken of these weights, all or some of those copied."""
        if not self.serves(weights):
            known = self.olds()
            torch._foreach_sub_(list(weights), [_share(w, known[id(w)], taken) for w in weights])
            return
        for pack in self._packs:
            pack.cautious(taken)
        for weight, old in self._large:
            _take_in_pieces(weight.view(-1), old.view(-1), taken, CHUNK)
        if self._other:
            torch._foreach_sub_([w for w, _ in self._other], [_share(w, old, taken) for w, old in self._other])

    def olds(self) -> dict[int, Tensor]:
        """The copies, by the weights' ids."""
        known = {id(w): old for pack in self._packs for w, old in zip(pack.of, pack.olds, strict=True)}
        return known | {id(w): old for w, old in (*self._large, *self._other)}


class _Pack:
    """Small tensors of one dtype, their copies in one flat memory."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.of = list(weights)
        size = sum(w.numel() for w in weights)
        self._old, self._new = (torch.empty(size, dtype=weights[0].dtype) for _ in "on")
        self.olds, self._news = (
            [
                part.view(w.shape)
                for part, w in zip(torch.split(flat, [w.numel() for w in weights]), weights, strict=True)
            ]
            for flat in (self._old, self._new)
        )

    def take(self) -> None:
        torch._foreach_copy_(self.olds, self.of)

    def cautious(self, taken: Any) -> None:
        torch._foreach_copy_(self._news, self.of)
        _take_in_pieces(self._new, self._old, taken, ALONE)
        torch._foreach_copy_(self.of, self._news)


def _take_in_pieces(now: Tensor, old: Tensor, taken: Any, size: int) -> None:
    for start, end in pairwise([*range(0, now.numel(), size), now.numel()]):
        _take(now[start:end], old[start:end], taken)


def _take(now: Tensor, old: Tensor, taken: Any) -> None:
    if old.dtype in WIDE and not isinstance(taken, Tensor):
        now.addcmul_((now - old).mul_(old).le_(0), old, value=-taken)
    else:
        now.sub_(_share(now, old, taken))


def _share(now: Tensor, old: Tensor, taken: Any) -> Tensor:
    """What is taken of `now`: s w_old where the step did not move it away from 0."""
    if old.dtype not in WIDE:
        now, old = now.float(), old.float()
    return (now - old).mul_(old).le_(0).mul_(old).mul_(taken)
