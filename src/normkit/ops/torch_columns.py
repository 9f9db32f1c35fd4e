"""One column's tensors made fit to be read together, in place wherever that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from normkit.errors import ArgumentError

KINDS = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
_SINGLE = (torch.bool, torch.int8, torch.uint8, torch.int16)  # float32 holds them exactly

Group = tuple[Tensor | None, ...]  # what stands in one column: weight; gradient, weight and copy; weight and copy


@dataclass
class Column:
    """The tensors of one column, fit to be read together: one dtype, dense, in one order of memory."""

    tensors: tuple[Tensor | None, ...]
    away: bool  # on a device
    untouched: bool = False  # they are the caller's own, so their addresses may be remembered
    hidden_zeros: int = 0  # entries that a sparse tensor does not store


def fit(group: Group) -> Column:
    present = [t for t in group if t is not None]
    for t in present:
        refuse_unreadable(t)
    away = any(on_device(t) for t in present)
    if readable_together(present) or (away and all(t.layout == torch.strided for t in present)):
        if away and group[0] is None and len(group) == 3:
            return Column(_copied(group), away)
        return Column(group, away, untouched=True)
    first, *others = _copied(group)
    hidden = 0
    if first is not None and first.layout != torch.strided:
        hidden, first, others = _stored(first, others)
    dtypes = [_readable_dtype(t) for t in (first, *others) if t is not None]
    dtype = reduce(torch.promote_types, dtypes)
    fit = tuple(None if t is None else t.to(dtype).contiguous().resolve_neg() for t in (first, *others))
    return Column(fit, away, hidden_zeros=hidden)


def readable_together(tensors: Sequence[Tensor]) -> bool:
    first = tensors[0] if tensors else None
    for t in tensors:
        if t.layout != torch.strided or t.dtype not in KINDS or t.is_neg() or not _dense(t):
            return False
        if t is not first and first is not None and not (t.dtype == first.dtype and _same_order(t, first)):
            return False
    return True


def _copied(group: Group) -> Group:
    """Where a weight's copy is wanted that the kernel cannot write along the way, write it now."""
    if len(group) == 3 and group[1] is not None and group[2] is not None:
        group[2].copy_(group[1])
        return (group[0], group[1], None)
    return group


def _stored(sparse: Tensor, others: list[Tensor | None]) -> tuple[int, Tensor, list[Tensor | None]]:
    """The entries that a sparse tensor stores, the others' entries at the same places, and how many are not stored."""
    if sparse.layout != torch.sparse_coo:
        return 0, sparse.to_dense(), others
    sparse = sparse.coalesce()
    where = tuple(sparse.indices())
    values = sparse.values()
    return sparse.numel() - values.numel(), values, [None if t is None else t[where] for t in others]


def refuse_unreadable(t: Tensor, name: str = "") -> None:
    """ArgumentError for a tensor whose numbers cannot be read, with its name where it has one."""
    shape = tuple(t.shape)
    said, end = (f"{name} is", "") if name else ("", " was given")
    if t.is_complex():
        what, advice = f"a {t.dtype} tensor of shape {shape}", "norms are of real numbers: pass view_as_real(t)"
    elif t.is_meta:
        what, advice = f"a tensor of shape {shape} on the meta device", "it has no values: materialize it first"
    elif type(t) not in (Tensor, torch.nn.Parameter) and is_traceable_wrapper_subclass(t):
        kind = type(t).__name__
        what, advice = f"a {kind} of shape {shape}", "it has no plain memory: pass its local or full tensor"
    elif t.is_quantized:
        what, advice = f"a quantized tensor of shape {shape}", "pass t.dequantize() instead"
    else:
        return
    raise ArgumentError(f"{said} {what}{end}; {advice}".lstrip())


def _readable_dtype(t: Tensor) -> torch.dtype:
    if t.dtype in KINDS:
        return t.dtype
    return torch.float32 if t.dtype in _SINGLE or t.is_floating_point() else torch.float64


def readable(t: Tensor) -> Tensor:
    refuse_unreadable(t)
    dense = t.detach() if t.layout == torch.strided else t.detach().to_dense()
    return dense.to(_readable_dtype(dense)).resolve_neg()


def _dense(t: Tensor) -> bool:
    """Whether `t` fills its memory, in whatever order of its axes."""
    if t.is_contiguous():
        return True
    filled = 1
    for stride, size in sorted((stride, size) for stride, size in zip(t.stride(), t.shape, strict=True) if size != 1):
        if stride != filled:
            return False
        filled *= size
    return True


def _same_order(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.stride() == b.stride() or (a.is_contiguous() and b.is_contiguous()))


def on_device(t: Tensor) -> bool:
    return t.device.type != "cpu"
