"""The pyramid: every block against float64 sums of the records that it stands for, whatever happened in between."""

import numpy as np
import pytest

from blocks import assert_consistent, assert_stands_for, made, row, taken
from normkit.store import jobs
from normkit.store.pyramid import RADIX, Pyramid
from normkit.types import Reading


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 255, 256, 257, 272, 300])
def test_every_block_says_what_its_records_say(count):
    records = [row(seq) for seq in range(count)]
    blocks = taken(records)
    assert_consistent(blocks, records)
    top = max(block.level for block in blocks)
    assert [block.records for block in blocks if block.level == top] == [count]


def test_the_check_of_blocks_can_fail():
    records = [row(seq) for seq in range(16)]
    (block,) = taken(records)
    block.planes[1][2, 1, 1] *= 1.001
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_stands_for(block, [block], records)


def test_blocks_of_a_level_come_as_soon_as_they_are_full():
    pyramid = Pyramid()
    given = [[block.level for block in pyramid.take(row(seq, 1))] for seq in range(RADIX**2)]
    assert [levels for levels in given if levels] == [[1]] * (RADIX - 1) + [[1, 2]]
    assert [place for place, levels in enumerate(given) if levels] == list(range(RADIX - 1, RADIX**2, RADIX))


def test_an_open_pyramid_closes_once():
    pyramid = Pyramid()
    for seq in range(20):
        pyramid.take(row(seq))
    assert [(block.level, block.records) for block in pyramid.close()] == [(1, 4), (2, 20)]
    assert pyramid.close() == []
    assert Pyramid().close() == []


def test_six_and_seven_rows_in_one_block():
    records = [row(seq, lines=6 if seq % 3 else 7) for seq in range(40)]
    blocks = taken(records)
    assert_consistent(blocks, records)
    assert {len(block.planes[1]) for block in blocks} == {7}
    assert {len(block.planes[0]) for block in blocks} == {6}


def test_six_rows_in_one_block_and_seven_in_the_next():
    records = [row(seq, lines=6 if seq < 32 else 7) for seq in range(48)]
    blocks = taken(records)
    assert_consistent(blocks, records)
    assert [len(block.planes[1]) for block in blocks if block.level == 1] == [6, 6, 7]


def test_a_quantity_that_is_missing_at_first():
    records = [row(seq, update=seq > 0) for seq in range(20)]
    assert_consistent(taken(records), records)
    without = taken([row(seq, update=False) for seq in range(20)])
    assert {block.planes[2] is None for block in without} == {True}
    assert jobs.row(0, made(0, 2, update=False), 2, attempt=0, now=0.0).blobs[2] is None


def test_a_column_that_is_nan_throughout_stays_nan():
    nothing = {name: np.full((7, 2), np.nan) for name in ("grad", "update")}
    records = [
        jobs.row(seq, Reading(seq, 0, 0.0, {"weight": np.ones((6, 2)), **nothing}), 2, attempt=0, now=0.0)
        for seq in range(300)
    ]
    for block in taken(records):
        assert np.isnan(block.planes[1]).all()
        np.testing.assert_array_equal(block.planes[0], np.ones((6, 3, 2)))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 2.9e38, 0.0])
def test_the_mean_of_equal_numbers_is_that_number(value):
    values = {"weight": np.full((6, 1), value)}
    records = [jobs.row(seq, Reading(seq, 0, 0.0, values), 1, attempt=0, now=0.0) for seq in range(300)]
    for block in taken(records):
        least, mean, most = np.moveaxis(block.planes[0], 1, 0)
        np.testing.assert_array_equal(least, most)
        np.testing.assert_array_equal(mean, most)


def test_infinities_and_numbers_beyond_float32():
    weights = [np.full((6, 3), fill) for fill in (1.0, np.inf, 1e300)]
    records = [
        jobs.row(seq, Reading(seq, 0, 0.0, {"weight": weights[seq % 3]}), 3, attempt=0, now=0.0) for seq in range(40)
    ]
    for block in taken(records):
        np.testing.assert_array_equal(block.planes[0][0, 0], 1.0)
        np.testing.assert_array_equal(block.planes[0][0, 1:], np.inf)


@pytest.mark.parametrize("what", ["layout", "attempt"])
def test_a_change_closes_what_is_open(what):
    records = [row(seq, **{what: int(seq >= 21)}) for seq in range(60)]
    pyramid = Pyramid()
    given = [pyramid.take(one) for one in records]
    assert [(block.level, block.records) for block in given[21]] == [(1, 5), (2, 21)]
    assert_consistent([block for blocks in given for block in blocks] + pyramid.close(), records)


def test_a_layout_without_tensors():
    records = [row(seq, 0) for seq in range(17)]
    for block in taken(records):
        assert block.planes == (None, None, None)
    assert [block.records for block in taken(records)] == [16, 1, 17]


def test_scalars_are_spans_without_nan():
    records = [
        row(seq, scalars={"loss": float(seq), "lr": 0.5} if seq else {"loss": float("nan")}) for seq in range(20)
    ]
    blocks = taken(records)
    assert blocks[0].scalars == {"loss": (1.0, 8.0, 15.0), "lr": (0.5, 0.5, 0.5)}
    assert blocks[-1].scalars["loss"] == (1.0, pytest.approx((16 * 8.0 + 4 * 17.5) / 20), 19.0)
    only = taken([row(0, scalars={"loss": float("nan")})])
    assert np.isnan(only[0].scalars["loss"]).all()


def test_a_late_scalar_counts_as_long_as_its_block_is_open():
    pyramid = Pyramid()
    for seq in range(3):
        pyramid.take(row(seq))
    pyramid.amend(1, {"loss": 7.0})
    pyramid.amend(99, {"loss": 1e9})
    (block,) = pyramid.close()
    assert block.scalars == {"loss": (7.0, 7.0, 7.0)}
    pyramid.amend(1, {"loss": 8.0})
    assert pyramid.close() == []
