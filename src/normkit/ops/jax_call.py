"""The compiled kernel as a custom call of XLA: inside a jitted function on the CPU it reads the arrays in place.

XLA's own float64 reductions on a CPU are scalar loops, some 40 times slower. What stands here is the C interface of
`xla/ffi/api/c_api.h` as far as it is needed: structures, and one function that XLA calls on its own threads. The host
is called with addresses, never with arrays, so nothing in it can wait for a device.
"""

from __future__ import annotations

import ctypes as c
from functools import cache
from typing import Any

import jax
import numpy as np

from normkit.ops import cpu
from normkit.ops.arithmetic import usual_arithmetic
from normkit.ops.compiling import compiled
from normkit.ops.jax_gate import gated

TARGET = "normkit_sums_of_rows"
PASSES = {6: "sums", 7: "grad_sums", 13: "step_sums"}  # rows of the result -> kernel
VERSION = (0, 3)  # of the interface that the structures below follow; XLA refuses one that it no longer serves
EXECUTE = 3  # the stage of a call that has data
METADATA = 1  # the extension by which XLA asks for the version
KINDS = {12: "float64", 11: "float32", 10: "float16", 16: "bfloat16"}  # XLA's numbers for element types


class _Extension(c.Structure):
    _fields_ = (("size", c.c_size_t), ("kind", c.c_int), ("next", c.c_void_p))


class _Version(c.Structure):
    _fields_ = (("size", c.c_size_t), ("extension", c.c_void_p), ("major", c.c_int), ("minor", c.c_int))


class _Metadata(c.Structure):
    _fields_ = (("size", c.c_size_t), ("version", _Version), ("traits", c.c_uint32))


class _MetadataExtension(c.Structure):
    _fields_ = (("base", _Extension), ("metadata", c.POINTER(_Metadata)))


class _Buffer(c.Structure):
    _fields_ = (
        ("size", c.c_size_t),
        ("extension", c.c_void_p),
        ("kind", c.c_int),
        ("data", c.c_void_p),
        ("rank", c.c_int64),
        ("dims", c.POINTER(c.c_int64)),
    )


class _Buffers(c.Structure):
    _fields_ = (
        ("size", c.c_size_t),
        ("extension", c.c_void_p),
        ("count", c.c_int64),
        ("kinds", c.c_void_p),
        ("items", c.POINTER(c.POINTER(_Buffer))),
    )


class _Api(c.Structure):
    _fields_ = (("size", c.c_size_t), ("extension", c.c_void_p), ("version", _Version))


class _Frame(c.Structure):
    _fields_ = (
        ("size", c.c_size_t),
        ("extension", c.POINTER(_Extension)),
        ("api", c.POINTER(_Api)),
        ("context", c.c_void_p),
        ("stage", c.c_int),
        ("args", _Buffers),
        ("results", _Buffers),
    )


@cache
def registered() -> bool:
    """Does XLA know the kernel? Tried once; where it cannot be, XLA's own reductions serve."""
    try:
        jax.devices("cpu")  # before there is a CPU backend a refusal would come later, out of somebody else's call
        jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(gated(_handler)), platform="cpu")
    except Exception:  # no CPU backend, an older jax, an XLA with another interface
        return False
    return True


def sums_by_kernel(*blocks: Any, rows: int) -> Any:
    """[rows][R]: one of the three PASSES over all rows of the blocks, each [rows][length].

    Where the pass reads two arrays, the second half of the blocks are the partners of the first. For use inside jit on
    a CPU, in a context with float64; each block in one of the kernel's formats, partners in the same one.
    """
    own = blocks if rows == 6 else blocks[: len(blocks) // 2]
    for name in {block.dtype.name for block in own}:
        compiled(PASSES[rows], cpu.STORED_AS[cpu.KINDS[name]])  # now, not on a thread of XLA's
    shape = (rows, sum(block.shape[0] for block in own))
    call = jax.ffi.ffi_call(TARGET, jax.ShapeDtypeStruct(shape, np.float64), vmap_method="sequential")
    return call(*blocks)


def _handle(pointer: Any) -> None:
    """What XLA calls; an exception in here is printed by ctypes, and leaves NaN: "there was none"."""
    frame = pointer.contents
    if frame.extension and frame.extension.contents.kind == METADATA:
        metadata = c.cast(frame.extension, c.POINTER(_MetadataExtension)).contents.metadata.contents
        spoken = frame.api.contents.version.minor if frame.api else VERSION[1]
        metadata.version.major, metadata.version.minor = VERSION[0], min(VERSION[1], spoken)
        metadata.traits = 0
    elif frame.stage == EXECUTE:
        out = frame.results.items[0].contents
        rows, columns = out.dims[0], out.dims[1]
        c.memset(out.data, 0xFF, rows * columns * 8)  # NaN
        with usual_arithmetic():
            matrix = np.ascontiguousarray(_sums(frame.args, rows))
        c.memmove(out.data, matrix.ctypes.data, matrix.nbytes)


_handler = c.CFUNCTYPE(c.c_void_p, c.POINTER(_Frame))(_handle)


def _sums(buffers: Any, rows: int) -> Any:
    if rows == 6:
        return cpu.sums(_table(buffers, range(buffers.count)))
    own = buffers.count // 2
    tables = _table(buffers, range(own)), _table(buffers, range(own, 2 * own))
    return cpu.grad_sums(*tables) if rows == 7 else np.concatenate(cpu.step_sums(*tables))


def _table(buffers: Any, which: range) -> cpu.Table:
    """The rows of the buffers, as blocks of memory."""
    items = [buffers.items[i].contents for i in which]
    data = np.array([item.data or 1 for item in items], np.int64)
    rows, lengths = (np.array([item.dims[k] for item in items], np.int64) for k in (0, 1))
    kinds = np.array([cpu.KINDS[KINDS[item.kind]] for item in items], np.int8)
    first = np.repeat(np.cumsum(rows) - rows, rows)
    within = np.arange(rows.sum()) - first
    strides = np.repeat(lengths * cpu.ITEMSIZES[kinds], rows)
    return cpu.Table(np.repeat(data, rows) + within * strides, np.repeat(lengths, rows), np.repeat(kinds, rows))
