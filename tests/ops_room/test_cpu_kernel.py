"""The compiled loops against the oracle: every dtype, every length around a block and a segment, special values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import reference
from normkit.ops import cpu
from normkit.ops.cpu import SEGMENT, Table

DTYPES = tuple(cpu.KINDS)
BLOCK = 512
LENGTHS = (1, 3, 15, 16, 17, BLOCK - 1, BLOCK, BLOCK + 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 77)


def stored(values, dtype):
    """The numbers as the kernel reads them: bfloat16 as its bits."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, dtype=dtype)
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def read(block, dtype):
    if dtype != "bfloat16":
        return block.astype(np.float64)
    return (block.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def table(blocks, dtype):
    addresses = [0 if x is None else x.ctypes.data or 1 for x in blocks]
    counts = [0 if x is None else x.size for x in blocks]
    return Table(addresses, counts, [cpu.KINDS[dtype]] * len(blocks), keep=blocks)


def draw(seed, length, dtype):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(length) * 10 ** rng.uniform(-1, 1)
    values[rng.random(length) < 0.1] = 0.0
    return stored(values, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_of_every_length(dtype):
    blocks = [draw(seed, length, dtype) for seed, length in enumerate(LENGTHS)]
    matrix = cpu.sums(table(blocks, dtype))
    assert matrix.shape == (6, len(blocks))
    for column, block in zip(matrix.T, blocks, strict=True):
        reference.assert_sums(column, read(block, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_grad_sums_of_every_length(dtype):
    grads = [draw(seed, length, dtype) for seed, length in enumerate(LENGTHS)]
    weights = [draw(100 + seed, length, dtype) for seed, length in enumerate(LENGTHS)]
    matrix = cpu.grad_sums(table(grads, dtype), table(weights, dtype))
    assert matrix.shape == (7, len(grads))
    for column, g, w in zip(matrix.T, grads, weights, strict=True):
        reference.assert_sums(column, read(g, dtype), read(w, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_grad_sums_copy_the_weights_bit_by_bit(dtype):
    weights = [draw(seed, length, dtype) for seed, length in enumerate(LENGTHS)]
    weights[3].view(np.uint8)[:] = 255  # NaN of every kind
    grads = [None, *(draw(50 + seed, x.size, dtype) for seed, x in enumerate(weights[1:]))]
    copies = [np.zeros_like(x) for x in weights]
    copies[1], kept = None, weights[1].copy()
    matrix = cpu.grad_sums(table(grads, dtype), table(weights, dtype), table(copies, dtype))
    assert np.isnan(matrix[:, 0]).all()
    assert np.array_equal(kept, weights[1])
    for copy, w in zip(copies, weights, strict=True):
        assert copy is None or copy.tobytes() == w.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_step_sums_of_every_length(dtype):
    weights = [draw(seed, length, dtype) for seed, length in enumerate(LENGTHS)]
    old = [draw(100 + seed, length, dtype) for seed, length in enumerate(LENGTHS)]
    old[4] = weights[4].copy()
    old[5] = None
    of_weights, of_steps = cpu.step_sums(table(weights, dtype), table(old, dtype))
    assert of_weights.shape == (6, len(weights))
    assert of_steps.shape == (7, len(weights))
    for column, w in zip(of_weights.T, weights, strict=True):
        reference.assert_sums(column, read(w, dtype))
    assert np.isnan(of_steps[:, 5]).all()
    assert of_steps[2, 4] == 0.0
    for column, w, before in zip(of_steps.T, weights, old, strict=True):
        if before is not None:
            reference.assert_sums(column, read(w, dtype) - read(before, dtype), read(before, dtype))


def test_the_step_of_float32_weights_is_taken_in_float64():
    w, old = np.array([1e8, 1.0], np.float32), np.array([1.0, 1e-30], np.float32)
    _, steps = cpu.step_sums(table([w], "float32"), table([old], "float32"))
    assert steps[0, 0] == (1e8 - 1.0) + 1.0


SPECIAL = {
    "nan": (np.nan, np.nan),
    "nan after inf": (np.inf, np.nan),
    "inf": (np.inf, np.inf),
    "minus inf": (-np.inf, -np.inf),
    "both infinities": (np.inf, -np.inf),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("places", [(0, 1), (5, BLOCK + 3), (SEGMENT - 1, SEGMENT + 1)])
def test_special_values_follow_ieee(dtype, special, places):
    values = np.linspace(-1.0, 1.0, SEGMENT + BLOCK + 10)
    values[list(places)] = SPECIAL[special]
    block = stored(values, dtype)
    reference.assert_sums(cpu.sums(table([block], dtype))[:, 0], read(block, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_minus_zero_is_a_zero(dtype):
    block = stored(np.array([0.0, -0.0, 1.0, -1.0] * 200), dtype)
    reference.assert_sums(cpu.sums(table([block], dtype))[:, 0], read(block, dtype))
    assert cpu.sums(table([block], dtype))[4, 0] == 400


def test_every_float16_is_read_rightly():
    bits = np.arange(2**16, dtype=np.uint16).reshape(-1, 1).repeat(2, axis=1)
    blocks = list(bits.view(np.float16))
    matrix = cpu.sums(table(blocks, "float16"))
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = bits.view(np.float16)[:, 0].astype(np.float64)
        twice = 2 * expected
    np.testing.assert_array_equal(matrix[0], twice)
    np.testing.assert_array_equal(matrix[3], np.abs(expected))
    np.testing.assert_array_equal(matrix[5], 2 * ~np.isfinite(expected))


def test_every_bfloat16_is_read_rightly():
    bits = np.arange(2**16, dtype=np.uint16).reshape(-1, 1)
    matrix = cpu.sums(table(list(bits), "bfloat16"))
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = (bits[:, 0].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(matrix[0], expected)
    np.testing.assert_array_equal(matrix[4], expected == 0)


def test_subnormal_numbers_are_not_flushed_to_zero():
    tiny = np.array([5e-324, -5e-324, 0.0])
    np.testing.assert_array_equal(cpu.sums(table([tiny], "float64"))[:, 0], [0.0, 1e-323, 0.0, 5e-324, 1, 0])
    small = np.array([1e-45, 0.0], np.float32)
    assert cpu.sums(table([small], "float32"))[3, 0] == np.float64(small[0])


def test_absent_and_empty_blocks():
    full = np.ones(3)
    matrix = cpu.sums(table([None, np.zeros(0), full, None], "float64"))
    assert np.isnan(matrix[:, [0, 3]]).all()
    assert (matrix[:, 1] == 0).all()
    assert matrix[:, 2].tolist() == [3.0, 3.0, 3.0, 1.0, 0.0, 0.0]
    assert cpu.sums(table([], "float32")).shape == (6, 0)
    assert cpu.grad_sums(table([], "float32"), table([], "float32")).shape == (7, 0)


def test_kinds_may_be_mixed_in_one_table():
    blocks = {dtype: draw(7, 1000, dtype) for dtype in DTYPES}
    columns = list(itertools.chain(blocks.items(), reversed(blocks.items())))
    mixed = Table(
        [x.ctypes.data for _, x in columns],
        [x.size for _, x in columns],
        [cpu.KINDS[d] for d, _ in columns],
        keep=blocks,
    )
    for column, (dtype, block) in zip(cpu.sums(mixed).T, columns, strict=True):
        reference.assert_sums(column, read(block, dtype))


def test_a_moved_table_reads_the_new_place():
    first, second = np.arange(10.0), np.arange(10.0) * 2
    here = table([first, None], "float64")
    assert cpu.sums(here)[0, 0] == 45.0
    moved = here.moved([second.ctypes.data, 0])
    assert moved.plans is here.plans
    assert cpu.sums(moved)[0, 0] == 90.0
    both = here.moved([first.ctypes.data, 0]).moved([0, 0])
    assert np.isnan(cpu.sums(both)).all()


def test_memory_beside_the_blocks_is_not_touched():
    guard = np.full(BLOCK + 64, 7.0, np.float32)
    weights = np.arange(BLOCK + 3, dtype=np.float32)
    target = guard[16 : 16 + weights.size]
    cpu.grad_sums(table([weights], "float32"), table([weights], "float32"), table([target], "float32"))
    assert np.array_equal(target, weights)
    assert (guard[:16] == 7.0).all()
    assert (guard[16 + weights.size :] == 7.0).all()
