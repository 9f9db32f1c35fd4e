"""Weight normalization in eager PyTorch, p = 2: the room's formula in few passes, with its gradients in closed form.

torch's own fused kernels do the work where they are right: on the CPU, the first or the last axis kept, groups neither
long nor near the ends of the number format. Everything else that eager torch meets is worked out here in
place, or by the room. What records or transforms operations instead of running them (torch.compile, torch.func,
forward-mode derivatives, export) gets the room's formula, which is made of ordinary operations.

The backward pass keeps v, g and the lengths, as torch's does, and gives a closed form; when that is to be
differentiated again (`create_graph=True`) it gives the derivative of the room's formula instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from normkit.lengths import other_axes, refuse_shape
from normkit.normalize import gradients, norm_except_dim, normalized
from normkit.ops import math_of

PLAIN = (Tensor, nn.Parameter)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Entries of a group up to which torch's kernel, which adds them one after another, is right to 1e-6.
KERNEL_MOST = 2**14
# Lengths between which no square that counts is lost below or above, in float64 and in float32.
SAFE, SAFE_FLOAT32 = (1e-140, 1e150), (1e-15, 1e18)
BLOCK = 2**15  # entries of half precision that are worked out in float32 at a time
WIDE = (torch.float32, torch.float64)

# The room asks once per class which operations serve it; asked here, since a compiler cannot trace the asking.
_KNOWN = [math_of(kind(torch.empty(0))) for kind in PLAIN]
_MODES = (torch._C._TorchDispatchModeKey.FAKE, torch._C._TorchDispatchModeKey.PROXY)


def weight(g: Tensor, v: Tensor, kept: tuple[int, ...], p: float = 2) -> Tensor:
    """w = g v / |v|_p, as `normkit.normalize.normalized`; where it can, fast and in little memory.

    Raises: ArgumentError for a g of another shape.
    """
    if p != 2 or not (_plain(v) and _plain(g) and runs()) or g.dtype is not v.dtype or g.device != v.device:
        return normalized(v, g, kept, p=p)  # type: ignore[no-any-return]
    if list(g.shape) != _shape(v, kept):
        refuse_shape(g.shape, v.shape, other_axes(kept, v.shape))
    if torch.is_grad_enabled() and (v.requires_grad or g.requires_grad):
        return _Normalized.apply(g, v, kept)  # type: ignore[no-any-return,no-untyped-call]
    return _worked_out(g.detach(), v.detach(), kept)[0]


@torch.no_grad()
def lengths(v: Tensor, kept: tuple[int, ...], p: float = 2) -> Tensor:
    """|v|_p of each group in v's dtype: the very number that `weight` divides by, so that w is v bit for bit."""
    if p != 2 or not (_plain(v) and runs()):
        return norm_except_dim(v, kept, p=p)  # type: ignore[no-any-return]
    return _worked_out(v.new_ones(_shape(v, kept)), v.detach(), kept)[1].to(v.dtype)


def _shape(v: Tensor, kept: tuple[int, ...]) -> list[int]:
    """That of g."""
    return [size if axis in kept else 1 for axis, size in enumerate(v.shape)]


def _plain(x: Tensor) -> bool:
    return (
        type(x) in PLAIN and x.dtype in FLOATS and x.layout is torch.strided and (x.is_cpu or x.device.type == "cuda")
    )


def runs() -> bool:
    """Are operations on plain tensors run here and now?"""
    return (
        not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and torch.autograd.forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
        and all(torch._C._get_dispatch_mode(mode) is None for mode in _MODES)
    )


class _Normalized(torch.autograd.Function):
    """w of g and v, the kept axes as numbers."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, v: Tensor, kept: tuple[int, ...]) -> Tensor:
        w, _, length, ctx.way = _worked_out(g, v, kept)
        ctx.kept = kept
        ctx.save_for_backward(g, v, length)
        return w

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad_w,) = grads
        if grad_w.layout is not torch.strided:  # of an embedding with sparse=True
            grad_w = grad_w.to_dense()
        g, v, length = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_again(ctx, g, v, grad_w), None)
        if torch._C._are_functorch_transforms_active() or type(grad_w) is not Tensor:  # many gradients at once
            grad_v, grad_g = _by_room(grad_w, v, g, length, ctx.kept)
        elif ctx.way == "kernel":
            backward = torch.ops.aten._weight_norm_interface_backward
            grad_v, grad_g = backward(grad_w.contiguous(), v, g, length, ctx.kept[0])
        elif ctx.way == "blocks":
            grad_v, grad_g = _gradients_in_blocks(grad_w, v, g, length, ctx.kept)
        elif v.dtype is length.dtype:
            grad_v, grad_g = _in_place(grad_w, v, g, length, ctx.kept)
        else:
            grad_v, grad_g = _by_room(grad_w, v, g, length, ctx.kept)
        return grad_g, grad_v, None


def _again(ctx: Any, g: Tensor, v: Tensor, grad_w: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The gradients as functions of g, v and grad_w, to be differentiated again."""
    needed = ctx.needs_input_grad[:2]
    wanted = [x for x, asked in zip((g, v), needed, strict=True) if asked]
    found = iter(torch.autograd.grad(normalized(v, g, ctx.kept), wanted, grad_w, create_graph=True))
    grad_g, grad_v = (next(found) if asked else None for asked in needed)
    return grad_g, grad_v


def _by_room(grad_w: Tensor, v: Tensor, g: Tensor, length: Tensor, kept: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    wide = length.dtype
    grad_v, grad_g = gradients(grad_w.to(wide), v.to(wide), g.to(wide), length, kept)
    return grad_v.to(v.dtype), grad_g.to(g.dtype)


def _in_place(grad_w: Tensor, v: Tensor, g: Tensor, length: Tensor, kept: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The room's `gradients`, with no more memory than the result takes."""
    grad_v = torch.mul(grad_w, v)
    grad_g = _total(grad_v, kept).div_(length)
    torch.addcmul(grad_w, v, grad_g / length, value=-1, out=grad_v)
    return grad_v.mul_(g / length), grad_g


# --- ways to w and the lengths; each is None where it would not be right --------------------------------------------

# w, the length of each group, what stands for it in quotients (1 where it is 0), and the way they were found
Worked = tuple[Tensor, Tensor, Tensor, str]


def _worked_out(g: Tensor, v: Tensor, kept: tuple[int, ...]) -> Worked:
    if not v.is_cpu:
        return _on_device(g, v, kept)
    by_parts = _by_squares if v.dtype in WIDE else _in_blocks
    return _by_kernel(g, v, kept) or by_parts(g, v, kept) or _in_room(g, v, kept)


def _by_kernel(g: Tensor, v: Tensor, kept: tuple[int, ...]) -> Worked | None:
    """torch's own, which keeps one axis, the first or the last, and reads memory in order."""
    if len(kept) != 1 or not 1 < v.ndim > kept[0] or kept[0] not in (0, v.ndim - 1):
        return None
    if not 0 < v.numel() <= KERNEL_MOST * v.shape[kept[0]] or not (v.is_contiguous() and g.is_contiguous()):
        return None
    w, length = torch._weight_norm_interface(v, g, kept[0])
    if _in_range(length):
        return w, length, length, "kernel"
    zero = length == 0  # the row of a padding, of a dead unit: the kernel has divided by 0 there
    safe, groups = length.masked_fill(zero, 1), zero.flatten().nonzero().flatten()
    if not _in_range(safe) or bool(v.index_select(kept[0], groups).any()):
        return None
    return w.index_fill_(kept[0], groups, 0), length, safe, "kernel"


def _by_squares(g: Tensor, v: Tensor, kept: tuple[int, ...]) -> Worked | None:
    """In the memory of the result."""
    if v.numel() == 0:
        return None
    w = torch.mul(v, v)
    length = safe = _total(w, kept).sqrt_()
    if not _in_range(length):
        zero = length == 0
        safe = length.masked_fill(zero, 1)
        if not _in_range(safe) or bool(torch.mul(v, zero, out=w).any()):
            return None
    return torch.mul(v, g / safe, out=w), length, safe, "squares"


def _in_blocks(g: Tensor, v: Tensor, kept: tuple[int, ...]) -> Worked | None:
    """Half precision, worked out in float32 a few rows at a time."""
    if v.numel() == 0 or v.ndim == 0:
        return None
    squares = torch.zeros_like(g, dtype=torch.float32)
    for rows, at in _blocks(v, kept):
        squares[at] += _total(v[rows].float().square_(), kept)
    length = squares.sqrt_()
    if not _in_range(length):
        return None
    w, factor = torch.empty_like(v), g / length
    for rows, at in _blocks(v, kept):
        w[rows] = v[rows].float().mul_(factor[at])
    return w, length, length, "blocks"


def _gradients_in_blocks(
    grad_w: Tensor, v: Tensor, g: Tensor, length: Tensor, kept: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The room's `gradients` in the same way."""
    grad_g = torch.zeros_like(length)
    for rows, at in _blocks(v, kept):
        grad_g[at] += _total(grad_w[rows].float().mul_(v[rows]), kept)
    grad_g.div_(length)
    grad_v, factor = torch.empty_like(v), g / length
    inner = factor * (grad_g / length)
    for rows, at in _blocks(v, kept):
        part = grad_w[rows].float().mul_(factor[at])
        grad_v[rows] = part.sub_(v[rows].float().mul_(inner[at]))
    return grad_v, grad_g.to(g.dtype)


def _blocks(v: Tensor, kept: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Rows of v, and those of g that belong to them."""
    count = max(1, BLOCK * v.shape[0] // v.numel())
    for first in range(0, v.shape[0], count):
        rows = slice(first, first + count)
        yield rows, rows if 0 in kept else slice(None)


def _in_room(g: Tensor, v: Tensor, kept: tuple[int, ...]) -> Worked:
    wide = torch.float64 if v.dtype is torch.float64 else torch.float32
    length = norm_except_dim(v.to(wide), kept)
    return normalized(v, g, kept), length, torch.where(length == 0, 1, length), "room"


def _on_device(g: Tensor, v: Tensor, kept: tuple[int, ...]) -> Worked:
    """Without a look at the numbers, for which the program would wait: squares in float64 need none."""
    if v.dtype is torch.float64:
        return _in_room(g, v, kept)
    axes = [axis for axis in range(v.ndim) if axis not in kept]
    length = torch.linalg.vector_norm(v, dim=axes, keepdim=True, dtype=torch.float64) if axes else v.abs()
    length = length.to(torch.float32)
    safe = torch.where(length == 0, 1, length)
    return torch.mul(v, g / safe, out=torch.empty_like(v)), length, safe, "device"


def _in_range(length: Tensor) -> bool:
    low, high = SAFE if length.dtype is torch.float64 else SAFE_FLOAT32
    least, most = length.aminmax()
    return least.item() > low and most.item() < high


def _total(x: Tensor, kept: tuple[int, ...]) -> Tensor:
    axes = [axis for axis in range(x.ndim) if axis not in kept]
    return x.sum(axes, keepdim=True) if axes else x.clone()
