"""The compiled loops: one pass over raw memory gives the sums that every norm follows from; three more write.

(This file is long because numba keeps compiled kernels for as long as the one file they stand in is unchanged.)

Memory comes as a table of addresses, cut into segments of at most 2^18 elements. Accumulators are float64 and last one
segment; segments are merged by the caller, so every sum is right to 1e-12 whatever the size.

What the compiler turns into vector code, and the loops here therefore are: a loop over the whole of a slice, with the
float sums and the integer tests on the raw bits in separate loops over the same block, which the second finds in the
first-level cache. Half precision comes as integers: uint16 is float16, int16 is bfloat16.

Fast-math is `reassoc contract nsz` alone: with `nnan` a NaN would be undefined, and the rest makes nothing faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

BLOCK = 512  # elements that both loops visit while they are in the first-level cache
AHEAD = 2**14  # bytes: how far before its use memory is asked for
LINE = 64  # bytes that come together

FAST = {"reassoc", "contract", "nsz"}
_BITS = {
    types.float64: types.uint64,
    types.float32: types.uint32,
    types.uint16: types.uint16,
    types.int16: types.uint16,
}


def _inner(function: F) -> F:
    """A function that kernels call; it is compiled into them."""
    return cast(F, numba.njit(fastmath=FAST, nogil=True)(function))


def _instruction(function: Callable[..., Any]) -> Any:
    """A function that becomes a few machine instructions, so that integers keep their narrow width.

    It is written with a typing context before its arguments, and called without.
    """
    return intrinsic(function)


# --- instructions ----------------------------------------------------------------------------------------------------


@_instruction
def _as_float64(_context: Any, x: Any) -> Any:
    """The value of an element as stored."""

    def generate(_: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _widen(builder, signature.args[0], args[0])

    return types.float64(x), generate


@_instruction
def _value(_context: Any, bits: Any, like: Any) -> Any:
    """The value that `bits` are the bits of, for elements stored as `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[1]
        return _widen(builder, kind, builder.bitcast(args[0], context.get_value_type(kind)))

    return types.float64(bits, like), generate


def _widen(builder: Any, kind: Any, element: Any) -> Any:
    if kind == types.float64:
        return element
    single = element if kind == types.float32 else _half_to_float32(builder, kind, element)
    return builder.fpext(single, ir.DoubleType())


def _half_to_float32(builder: Any, kind: Any, bits: Any) -> Any:
    word, single = ir.IntType(32), ir.FloatType()
    if kind == types.int16:  # bfloat16 is the upper half of a float32
        return builder.bitcast(builder.shl(builder.zext(bits, word), ir.Constant(word, 16)), single)
    if _converts_float16():
        return builder.fpext(builder.bitcast(bits, ir.HalfType()), single)
    wide = builder.zext(bits, word)
    sign = builder.shl(builder.and_(wide, ir.Constant(word, 0x8000)), ir.Constant(word, 16))
    rest = builder.shl(builder.and_(wide, ir.Constant(word, 0x7FFF)), ir.Constant(word, 13))
    scaled = builder.fmul(builder.bitcast(rest, single), ir.Constant(single, 2.0**112))  # exponent bias 127 - 15
    special = builder.icmp_unsigned(">=", rest, ir.Constant(word, 0x7C00 << 13))
    beyond = builder.or_(rest, ir.Constant(word, 0x7F800000))
    magnitude = builder.select(special, beyond, builder.bitcast(scaled, word))
    return builder.bitcast(builder.or_(magnitude, sign), single)


@cache
def _converts_float16() -> bool:
    """Whether this processor converts float16 itself; bits are shifted and scaled elsewhere."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("f16c")) or llvm.get_default_triple().startswith(("aarch64", "arm64"))


@_instruction
def _magnitude(_context: Any, x: Any) -> Any:
    """The bits of |x|: they compare as integers in the order of the values, infinity and NaN last."""

    def generate(_: Any, builder: Any, signature: Any, args: Any) -> Any:
        width = signature.return_type.bitwidth
        bits = builder.bitcast(args[0], ir.IntType(width))
        return builder.and_(bits, ir.Constant(bits.type, (1 << (width - 1)) - 1))

    return _BITS[x](x), generate


@_instruction
def _larger(_context: Any, a: Any, b: Any) -> Any:
    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *args), *args)

    return (a(a, a), generate) if a == b else None


@_instruction
def _plus_one_if_equal(_context: Any, count: Any, a: Any, b: Any) -> Any:
    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.add(args[0], builder.zext(builder.icmp_unsigned("==", *args[1:]), args[0].type))

    return count(count, a, b), generate


@_instruction
def _plus_one_if_reached(_context: Any, count: Any, a: Any, limit: Any) -> Any:
    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.add(args[0], builder.zext(builder.icmp_unsigned(">=", *args[1:]), args[0].type))

    return count(count, a, limit), generate


@_instruction
def _no_bits(_context: Any, x: Any) -> Any:
    """Zero, as wide as `x`."""

    def generate(context: Any, _builder: Any, signature: Any, _args: Any) -> Any:
        return context.get_constant(signature.return_type, 0)

    return _BITS[x](x), generate


@_instruction
def _infinite_bits(_context: Any, x: Any) -> Any:
    """The bits of infinity in the format of `x`; a NaN has a larger magnitude."""
    infinity = {types.float64: 0x7FF << 52, types.float32: 0xFF << 23, types.uint16: 0x7C00, types.int16: 0x7F80}[x]

    def generate(context: Any, _builder: Any, signature: Any, _args: Any) -> Any:
        return context.get_constant(signature.return_type, infinity)

    return _BITS[x](x), generate


@_instruction
def _memory(_context: Any, address: Any, like: Any) -> Any:
    """A pointer to elements of `like`'s type."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(address, like), generate


@_instruction
def _prefetch(_context: Any, x: Any, i: Any) -> Any:
    """Ask for the cache line of x[i]; where nothing lies, nothing happens."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(array.data, [args[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(ask, [place, *(ir.Constant(word, flag) for flag in (0, 2, 1))])  # to read, into level 2, data
        return context.get_dummy_value()

    return types.void(x, i), generate


@_instruction
def _wide_vectors(_context: Any, x: Any) -> Any:
    """`x`, in a function that may use the widest vectors there are; the compiler's own choice is half of them.

    A tenth to a quarter less time. llvmlite refuses attributes that it does not know, so their set is told directly.
    """

    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return args[0]

    return x(x), generate


@_instruction
def _claim(_context: Any, address: Any) -> Any:
    """Take the number at `address` and leave the next one there, whatever other threads do."""

    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        return builder.atomic_rmw(
            "add", builder.inttoptr(args[0], word.as_pointer()), ir.Constant(word, 1), "monotonic"
        )

    return types.int64(address), generate


# --- one block -------------------------------------------------------------------------------------------------------


@_inner
def _float_sums(w: Any) -> tuple[float, float, float]:
    total, length, square = _wide_vectors(0.0), 0.0, 0.0
    for i in range(w.size):
        x = _as_float64(w[i])
        total += x
        length += abs(x)
        square += x * x
    return total, length, square


@_inner
def _float_sums_and_dot(g: Any, w: Any) -> tuple[float, float, float, float]:
    total, length, square, dot = _wide_vectors(0.0), 0.0, 0.0, 0.0
    for i in range(g.size):
        x = _as_float64(g[i])
        total += x
        length += abs(x)
        square += x * x
        dot += x * _as_float64(w[i])
    return total, length, square, dot


@_inner
def _both_sums_of_step(w: Any, old: Any) -> Any:
    """In one loop, unlike elsewhere: the difference is float64, so its bits are as wide as its sums."""
    total, length, square, dot = _wide_vectors(0.0), 0.0, 0.0, 0.0
    largest, zeros = _no_bits(1.0), _no_bits(1.0)
    for i in range(w.size):
        before = _as_float64(old[i])
        x = _as_float64(w[i]) - before
        total += x
        length += abs(x)
        square += x * x
        dot += x * before
        bits = _magnitude(x)
        largest = _larger(largest, bits)
        zeros = _plus_one_if_equal(zeros, bits, _no_bits(1.0))
    nonfinite = _no_bits(1.0)
    if largest >= _infinite_bits(1.0):
        for i in range(w.size):
            bits = _magnitude(_as_float64(w[i]) - _as_float64(old[i]))
            nonfinite = _plus_one_if_reached(nonfinite, bits, _infinite_bits(1.0))
    return (total, length, square, dot), (largest, zeros, nonfinite)


@_inner
def _bit_sums(w: Any) -> Any:
    """Largest magnitude, zeros and non-finites; these last are looked for only where the largest is one."""
    largest = _wide_vectors(_no_bits(w[0]))
    zeros = _no_bits(w[0])
    for i in range(w.size):
        bits = _magnitude(w[i])
        largest = _larger(largest, bits)
        zeros = _plus_one_if_equal(zeros, bits, _no_bits(w[0]))
    nonfinite = _no_bits(w[0])
    if largest >= _infinite_bits(w[0]):
        for i in range(w.size):
            nonfinite = _plus_one_if_reached(nonfinite, _magnitude(w[i]), _infinite_bits(w[0]))
    return largest, zeros, nonfinite


@_inner
def _ask_for_block_after(x: Any, start: int) -> None:
    """Without this the loops wait: 40 ms for 256 MB on one core, and 22 with it."""
    first = start + AHEAD // x.itemsize
    for i in range(first, min(first + BLOCK, x.size), LINE // x.itemsize):
        _prefetch(x, i)


# --- one segment -----------------------------------------------------------------------------------------------------


@_inner
def _sums_of_segment(w: Any, out: Any, k: int) -> None:
    largest = _no_bits(w[0])
    total, length, square, zeros, nonfinite = 0.0, 0.0, 0.0, 0, 0
    for start in range(0, w.size, BLOCK):
        _ask_for_block_after(w, start)
        block = w[start : min(start + BLOCK, w.size)]
        block_total, block_length, block_square = _float_sums(block)
        block_largest, block_zeros, block_nonfinite = _bit_sums(block)
        total += block_total
        length += block_length
        square += block_square
        largest = _larger(largest, block_largest)
        zeros += int(block_zeros)
        nonfinite += int(block_nonfinite)
    out[0, k], out[1, k], out[2, k] = total, length, square
    out[3, k], out[4, k], out[5, k] = _value(largest, w[0]), zeros, nonfinite


@_inner
def _grad_sums_of_segment(g: Any, w: Any, kept: Any, out: Any, k: int) -> None:
    """Sums of g and g.w; w is written to `kept` unless that is empty."""
    largest = _no_bits(g[0])
    total, length, square, dot, zeros, nonfinite = 0.0, 0.0, 0.0, 0.0, 0, 0
    for start in range(0, g.size, BLOCK):
        _ask_for_block_after(g, start)
        _ask_for_block_after(w, start)
        stop = min(start + BLOCK, g.size)
        block = g[start:stop]
        block_total, block_length, block_square, block_dot = _float_sums_and_dot(block, w[start:stop])
        block_largest, block_zeros, block_nonfinite = _bit_sums(block)
        if kept.size:
            _copy(w[start:stop], kept[start:stop])
        total += block_total
        length += block_length
        square += block_square
        dot += block_dot
        largest = _larger(largest, block_largest)
        zeros += int(block_zeros)
        nonfinite += int(block_nonfinite)
    out[0, k], out[1, k], out[2, k] = total, length, square
    out[3, k], out[4, k], out[5, k], out[6, k] = _value(largest, g[0]), zeros, nonfinite, dot


@_inner
def _copy(source: Any, target: Any) -> None:
    for i in range(source.size):
        target[i] = source[i]


@_inner
def _keep_segment(w: Any, old: Any) -> None:
    for start in range(0, w.size, BLOCK):
        _ask_for_block_after(w, start)
        _ask_for_block_after(old, start)
        stop = min(start + BLOCK, w.size)
        _copy(w[start:stop], old[start:stop])


@_inner
def _take_of_segment(w: Any, old: Any, taken: float) -> None:
    for start in range(0, w.size, BLOCK):
        _ask_for_block_after(w, start)
        _ask_for_block_after(old, start)
        stop = min(start + BLOCK, w.size)
        _take_where_not_outward(w[start:stop], old[start:stop], taken)


@_inner
def _scale_segment(w: Any, factor: float) -> None:
    times = w.dtype.type(_wide_vectors(factor))
    for i in range(w.size):
        w[i] *= times


@_inner
def _take_where_not_outward(w: Any, old: Any, taken: float) -> None:
    """w - s w_old where (w - w_old) w_old <= 0, in the weights' own width."""
    part = w.dtype.type(_wide_vectors(taken))
    for i in range(w.size):
        now, before = w[i], old[i]
        w[i] = now - part * before if (now - before) * before <= 0 else now


@_inner
def _step_sums_of_segment(w: Any, old: Any, out: Any, k: int) -> None:
    """Sums of w - old and old.(w - old), the differences taken in float64."""
    largest = _no_bits(1.0)
    total, length, square, dot, zeros, nonfinite = 0.0, 0.0, 0.0, 0.0, 0, 0
    for start in range(0, w.size, BLOCK):
        _ask_for_block_after(old, start)
        stop = min(start + BLOCK, w.size)
        floats, bits = _both_sums_of_step(w[start:stop], old[start:stop])
        block_total, block_length, block_square, block_dot = floats
        block_largest, block_zeros, block_nonfinite = bits
        total += block_total
        length += block_length
        square += block_square
        dot += block_dot
        largest = _larger(largest, block_largest)
        zeros += int(block_zeros)
        nonfinite += int(block_nonfinite)
    out[6, k], out[7, k], out[8, k] = total, length, square
    out[9, k], out[10, k], out[11, k], out[12, k] = _value(largest, 1.0), zeros, nonfinite, dot


# --- kernels: what one thread does until no unit of work is left -----------------------------------------------------
#
# like       an empty array of the stored type: one compiled signature per dtype
# addresses  [1, 2 or 3 tables][N]
# segments   [column, first element, number of elements][S]
# units      [U + 1]: segments units[u] to units[u + 1] are claimed together
# claimed    address of the number of units claimed so far
# out        [sums][S]; for kernels that write, the numbers they need: [[share]], or [[factor of each column]]


def sums(like: Any, addresses: Any, segments: Any, units: Any, claimed: int, out: Any) -> None:  # noqa: PLR0917
    unit = _claim(_wide_vectors(claimed))
    while unit < units.size - 1:
        for k in range(units[unit], units[unit + 1]):
            _sums_of_segment(_segment(addresses[0], segments, k, like), out, k)
        unit = _claim(_wide_vectors(claimed))


def grad_sums(like: Any, addresses: Any, segments: Any, units: Any, claimed: int, out: Any) -> None:  # noqa: PLR0917
    unit = _claim(_wide_vectors(claimed))
    while unit < units.size - 1:
        for k in range(units[unit], units[unit + 1]):
            g, w = _segment(addresses[0], segments, k, like), _segment(addresses[1], segments, k, like)
            kept = _segment(addresses[2], segments, k, like)
            _grad_sums_of_segment(g, w, kept, out, k)
        unit = _claim(_wide_vectors(claimed))


def step_sums(like: Any, addresses: Any, segments: Any, units: Any, claimed: int, out: Any) -> None:  # noqa: PLR0917
    unit = _claim(_wide_vectors(claimed))
    while unit < units.size - 1:
        for k in range(units[unit], units[unit + 1]):
            w, old = _segment(addresses[0], segments, k, like), _segment(addresses[1], segments, k, like)
            _sums_of_segment(w, out, k)
            _step_sums_of_segment(w, old, out, k)
        unit = _claim(_wide_vectors(claimed))


def keep(like: Any, addresses: Any, segments: Any, units: Any, claimed: int, out: Any) -> None:  # noqa: PLR0917
    unit = _claim(_wide_vectors(claimed))
    while unit < units.size - 1:
        for k in range(units[unit], units[unit + 1]):
            _keep_segment(_segment(addresses[0], segments, k, like), _segment(addresses[1], segments, k, like))
        unit = _claim(_wide_vectors(claimed))


def scale(like: Any, addresses: Any, segments: Any, units: Any, claimed: int, out: Any) -> None:  # noqa: PLR0917
    unit = _claim(_wide_vectors(claimed))
    while unit < units.size - 1:
        for k in range(units[unit], units[unit + 1]):
            _scale_segment(_segment(addresses[0], segments, k, like), out[0, segments[0, k]])
        unit = _claim(_wide_vectors(claimed))


def take_cautiously(like: Any, addresses: Any, segments: Any, units: Any, claimed: int, out: Any) -> None:  # noqa: PLR0917
    unit = _claim(_wide_vectors(claimed))
    while unit < units.size - 1:
        for k in range(units[unit], units[unit + 1]):
            w, old = _segment(addresses[0], segments, k, like), _segment(addresses[1], segments, k, like)
            _take_of_segment(w, old, out[0, 0])
        unit = _claim(_wide_vectors(claimed))


@_inner
def _segment(table: Any, segments: Any, k: int, like: Any) -> Any:
    """Segment k as an array; empty where the table has no address for its column."""
    address = table[segments[0, k]]
    count = segments[2, k] if address else 0
    return numba.carray(_memory(address + segments[1, k] * like.itemsize, like), count)
