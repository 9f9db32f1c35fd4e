"""Weights that are dealt out among processes: their part here, the whole of them, and sums over all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Groups = tuple[Any, ...]  # process groups, one per axis of the mesh along which a tensor is dealt out


def is_sharded(w: Tensor) -> bool:
    """Is it a DTensor, of which this process has a part or a copy? Asked without importing its module."""
    return type(w) is not Tensor and hasattr(w, "placements") and hasattr(w, "full_tensor")


def part_here(w: Any) -> Tensor:
    """What this process has of it; derivatives come back as those of the whole."""
    part: Tensor = w.to_local(grad_placements=w.placements)
    return part


def whole(w: Any) -> Tensor:
    """All of it, put together from all processes; derivatives come back to the part that is here."""
    if not is_sharded(w):
        return w  # type: ignore[no-any-return]
    made: Tensor = w.full_tensor()
    return made


def groups_of(w: Any) -> Groups:
    """The process groups over which a sum of entries has to be added up; none where this process has all."""
    if not is_sharded(w):
        return ()
    return tuple(w.device_mesh.get_group(i) for i, place in enumerate(w.placements) if _deals_out(place))


def cut_axes(w: Any) -> frozenset[int]:
    """The axes of w that are cut."""
    places = w.placements if is_sharded(w) else ()
    return frozenset(place.dim % w.ndim for place in places if _deals_out(place))


def dealt_out(value: Tensor, like: Any) -> Tensor:
    """A tensor that every process has, dealt out as `like` is."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)


def added_up(numbers: Tensor, groups: Groups) -> Tensor:
    """The sum over the processes of these groups, in each of them."""
    for group in groups:
        torch.distributed.all_reduce(numbers, group=group)
    return numbers


def _deals_out(place: Any) -> bool:
    return not place.is_replicate()
