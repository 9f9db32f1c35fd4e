"""Which terms act on which tensors: what the sum of a penalty, its values and its gradients have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod, sqrt
from typing import Any

import torch
from torch import Tensor

from normkit.errors import StateError
from normkit.lengths import norm_except_dim
from normkit.ops import torch as ops
from normkit.penalize import group, l1, l2, toward
from normkit.torch.fused import WIDE
from normkit.torch.shards import Groups, is_sharded, part_here, whole

ROOM: dict[str, Callable[..., Any]] = {"l1": l1, "l2": l2, "group": group, "toward": toward}

Coefficients = Mapping[str, float]


class Work:
    """Which terms act on which tensors, one entry of each list per tensor: all that is known before their values are.

    `kept` are the axes whose indices are groups, `references` what `toward` measures from, `groups` the processes that
    have the other parts of a sharded tensor.
    """

    def __init__(
        self,
        terms: Sequence[frozenset[str]],
        kept: Sequence[tuple[int, ...]],
        references: Sequence[Tensor | None],
        groups: Sequence[Groups],
    ) -> None:
        self.terms, self.kept, self.references, self.groups = terms, kept, references, groups
        self.caches: dict[object, tuple[ops.Cache, ops.Cache]] = {}
        self.alike = terms[0] if len(set(terms)) == 1 else None  # where all have the same terms
        self.dealt_out = any(groups)

    def of(self, term: str, index: Sequence[int]) -> Sequence[int]:
        """Those of the tensors `index` that a term acts on."""
        return self.of_any({term}, index)

    def of_any(self, terms: Collection[str], index: Sequence[int]) -> Sequence[int]:
        """Those of the tensors `index` that one of the terms acts on."""
        if self.alike is not None:
            return () if self.alike.isdisjoint(terms) else index
        return [i for i in index if not self.terms[i].isdisjoint(terms)]

    def value(self, term: str, i: int, w: Tensor) -> Tensor:
        """The room's term of tensor number i."""
        more: Any = (self.kept[i],) if term == "group" else (self.reference(i, w),) if term == "toward" else ()
        value: Tensor = ROOM[term](w, *more)
        return value

    def reference(self, i: int, w: Tensor) -> Tensor:
        """What tensor number i is pulled toward: the part that belongs to `w`, where it is sharded."""
        given = self.references[i]
        assert given is not None  # every tensor of this term has one
        if not is_sharded(given):
            if given.shape != w.shape:
                raise StateError(
                    f"a weight of shape {tuple(w.shape)} beside a reference of shape {tuple(given.shape)}: it has "
                    "changed since the penalty was made; make another"
                )
            return given
        part = part_here(given)
        return part if part.shape == w.shape else whole(given)


class Call:
    """One call: the terms that are asked for, of tensors as they are now; the lengths of groups that it has found."""

    def __init__(
        self,
        work: Work,
        coefficients: Coefficients,
        tensors: Sequence[Tensor],
        lengths: dict[int, Tensor] | None = None,
    ) -> None:
        self.work, self.coefficients, self.tensors = work, coefficients, tensors
        self.lengths = {} if lengths is None else lengths
        self.devices, self.dtypes = {w.device for w in tensors}, {w.dtype for w in tensors}

    @property
    def alike(self) -> bool:
        """Are all of one device and dtype, and under the same terms?"""
        return self.work.alike is not None and len(self.devices) == len(self.dtypes) == 1

    def those(self, index: Sequence[int]) -> Any:
        """The tensors of these numbers, which rise: a list or tuple."""
        return self.tensors if len(index) == len(self.tensors) else [self.tensors[i] for i in index]


def lengths_of(w: Tensor, kept: tuple[int, ...]) -> Tensor:
    """Of each group, as `norm_except_dim` has them, in float64 where the device has it: no square is lost there."""
    w = w.detach()
    axes = [i for i in range(w.ndim) if i not in kept]
    if w.dtype is torch.float64 or w.device.type == "mps" or not axes:
        wide: Tensor = norm_except_dim(w if w.dtype in WIDE else w.float(), kept)
        return wide
    lengths: Tensor = torch.linalg.vector_norm(w, dim=axes, keepdim=True, dtype=torch.float64)
    return lengths


def root_of_size(w: Tensor, kept: tuple[int, ...]) -> float:
    """Of the number of entries in each group."""
    return sqrt(prod([size for i, size in enumerate(w.shape) if i not in kept]))


def widest_on(device: torch.device) -> torch.dtype:
    """Apple's devices have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64
