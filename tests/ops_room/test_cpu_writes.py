"""The compiled passes that write: copies, factors, cautious shares, in blocks of every length and nothing beside."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.ops import cpu
from normkit.ops.kernels import BLOCK

LENGTHS = [0, 1, 2, 7, 63, 64, 65, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5, cpu.SEGMENT + 3]
GUARD = 7.0
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def table(blocks):
    kinds = [cpu.KINDS[block.dtype.name] for block in blocks]
    return cpu.Table([block.ctypes.data for block in blocks], [block.size for block in blocks], kinds, keep=blocks)


def drawn(seed, dtype):
    """Blocks in memory that is guarded on both sides."""
    rng = np.random.default_rng(seed)
    blocks = []
    for length in LENGTHS:
        memory = np.full(length + 2 * BLOCK, GUARD, dtype)
        memory[BLOCK : BLOCK + length] = rng.standard_normal(length)
        blocks.append(memory[BLOCK : BLOCK + length])
    return blocks


def assert_guarded(blocks):
    for block in blocks:
        beside = [block.base[:BLOCK], block.base[BLOCK + block.size :]]
        assert all((part == GUARD).all() for part in beside)


@DTYPES
def test_every_block_is_copied_bit_by_bit(dtype):
    blocks, copies = drawn(0, dtype), drawn(1, dtype)
    blocks[-1][::7] = np.nan
    cpu.keep(table(blocks), table(copies))
    assert all(block.tobytes() == copy.tobytes() for block, copy in zip(blocks, copies, strict=True))
    assert_guarded(copies)


@DTYPES
def test_every_block_has_a_factor_of_its_own(dtype):
    blocks, factors = drawn(0, dtype), np.linspace(0.5, 1.5, len(LENGTHS))
    expected = [block * dtype(factor) for block, factor in zip(blocks, factors, strict=True)]
    cpu.scale(table(blocks), factors)
    for block, numbers in zip(blocks, expected, strict=True):
        np.testing.assert_array_equal(block, numbers)
    assert_guarded(blocks)


@DTYPES
def test_kinds_may_be_mixed(dtype):
    one, other = np.ones(5, dtype), np.ones(3, np.float64)
    cpu.scale(table([one, other]), [2.0, 3.0])
    assert (one.tolist(), other.tolist()) == ([2.0] * 5, [3.0] * 3)


@DTYPES
@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_share_of_the_old_weight_is_taken_where_the_step_did_not_go_outward(monkeypatch, dtype, threads):
    monkeypatch.setenv("NORMKIT_THREADS", threads)
    monkeypatch.setattr(cpu, "ALONE_BELOW", 0)
    blocks, olds = drawn(0, dtype), drawn(1, dtype)
    blocks[-1][::5] = olds[-1][::5]  # not moved at all: taken
    olds[-1][::11], blocks[-1][::13] = 0.0, np.nan
    expected = [
        np.where((w - old) * old <= 0, w.astype(np.float64) - 0.25 * old, w)
        for w, old in zip(blocks, olds, strict=True)
    ]
    left = [(block - old) * old > 0 for block, old in zip(blocks, olds, strict=True)]
    before = [block.copy() for block in blocks]
    cpu.take_cautiously(table(blocks), table(olds), 0.25)
    for block, numbers, alone, w in zip(blocks, expected, left, before, strict=True):
        np.testing.assert_allclose(block, numbers, rtol=2 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
        np.testing.assert_array_equal(block[alone], w[alone])
    assert_guarded(blocks)
    assert_guarded(olds)
