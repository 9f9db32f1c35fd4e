"""NumPy arrays: where their memory lies, or a conversion where the kernel cannot read it in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from normkit.errors import ArgumentError
from normkit.ops import cpu

if TYPE_CHECKING:
    from normkit.types import Matrix

Array = NDArray[Any]


def matrix_of_sums(arrays: Sequence[Array]) -> Matrix:
    """[6][N] sums; arrays that are dense in any order of their axes are read in place."""
    dense = [_dense(_readable(_whole(x))) for x in arrays]
    kinds = [cpu.KINDS[x.dtype.name] for x in dense]
    return cpu.sums(cpu.Table([_address(x) for x in dense], [x.size for x in dense], kinds, keep=dense))


def sums_of_rows(rows: Array) -> Matrix:
    """[6][R] sums of the rows of a 2-D array."""
    block = np.require(_readable(rows), requirements=["C", "A"])
    count, length = block.shape
    addresses = _address(block) + np.arange(count) * length * block.itemsize
    kinds = np.full(count, cpu.KINDS[block.dtype.name])
    return cpu.sums(cpu.Table(addresses, np.full(count, length), kinds, keep=block))


def as_rows(x: Array, kept: tuple[int, ...]) -> Array:
    """Kept axes to the front in their order and flattened, the rest flattened: [R][..]."""
    x = _whole(x)
    front = np.moveaxis(x, kept, range(len(kept)))
    count = int(np.prod([x.shape[axis] for axis in kept], dtype=np.int64))
    return front.reshape(count, x.size // count if count else 0)


def as_float64(x: Array) -> NDArray[np.float64]:
    return _readable(_whole(x)).astype(np.float64)


def _whole(x: Array) -> Array:
    """`x` as a plain array; what a mask hides must not be counted in silence."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ArgumentError(
            f"a masked array of shape {x.shape} with {int(np.ma.getmaskarray(x).sum())} masked entries was given; "
            "pass x.compressed(), or x.filled(0)"
        )
    return np.asarray(x)


def _readable(x: Array) -> Array:
    """`x` in one of the kernel's formats and the machine's byte order; exact for everything up to 53 bits."""
    if x.dtype.kind == "c":
        raise ArgumentError(
            f"an array of {x.dtype.name} was given; norms here are of real numbers: pass abs(x), or both parts"
        )
    if x.dtype.name in cpu.KINDS:
        return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    if x.dtype.kind in "biuf" or x.dtype.name.startswith(("float8", "float6", "float4", "int", "uint")):
        return x.astype(np.float64)
    raise ArgumentError(f"an array of {x.dtype} was given; an array of numbers was expected")


def _dense(x: Array) -> Array:
    """`x` itself where it fills its memory in some order of its axes, else a copy in C order."""
    by_stride = sorted((i for i in range(x.ndim) if x.shape[i] != 1), key=lambda i: -x.strides[i])
    return (
        x
        if x.flags.aligned and x.transpose(_all_axes(by_stride, x.ndim)).flags.c_contiguous
        else np.array(x, order="C")
    )


def _all_axes(some: list[int], ndim: int) -> list[int]:
    return some + [i for i in range(ndim) if i not in some]


def _address(x: Array) -> int:
    return x.ctypes.data if x.size else 1
