"""The fine operations on torch tensors; what each means stands in `normkit.ops`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Axes = tuple[int, ...]
WIDE = (torch.float32, torch.float64)

absolute, sqrt, where = torch.abs, torch.sqrt, torch.where


def constant(x: Tensor) -> Tensor:
    return x.detach()


def ones(x: Tensor) -> Tensor:
    return torch.ones_like(x)


def total(x: Tensor, axes: Axes) -> Tensor:
    return x.sum(axes, keepdim=True) if axes else x  # without axes torch would take all of them


def largest(x: Tensor, axes: Axes) -> Tensor:
    if not axes:
        return x.abs()
    if x.numel() == 0:
        return x.new_zeros([1 if i in axes else size for i, size in enumerate(x.shape)])
    return x.abs().amax(axes, keepdim=True)


def power(x: Tensor, exponent: float) -> Tensor:
    return x**exponent


def power_of_two(x: Tensor) -> Tensor:
    some = torch.where((x > 0) & (x < torch.inf), x, torch.ones_like(x))
    mantissa, _ = torch.frexp(some)
    return some / (2 * mantissa)


def widened(x: Tensor) -> Tensor:
    return x if x.dtype in WIDE else x.to(torch.float32)


def widest(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)  # Apple's devices have no float64


def as_type_of(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


def matrix_product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def reshaped(x: Tensor, shape: Axes) -> Tensor:
    return x.reshape(shape)


def transposed(x: Tensor, order: Axes) -> Tensor:
    return x.permute(order)


def places(x: Tensor) -> Tensor:
    return torch.arange(len(x), dtype=x.dtype, device=x.device)[:, None]


def svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, sigma, v = torch.linalg.svd(x, full_matrices=False)
    return u, sigma, v


def either(flag: Tensor, change: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():  # to look at the flag would break the graph
        return torch.where(flag, change(torch.where(flag, x, torch.zeros_like(x))), x)
    return change(x) if flag else x
