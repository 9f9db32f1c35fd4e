"""Stats, their merging, and their way into and out of a matrix."""

from __future__ import annotations

import dataclasses
import math
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from normkit.errors import ArgumentError
from normkit.sums import NOTHING, from_matrix, merge, stats_of, to_matrix
from normkit.types import SUMS, Stats

SMALL = {"min_value": -1000, "max_value": 1000}


def assert_stats(stats, x):
    assert stats.count == np.asarray(x).size
    reference.assert_sums([getattr(stats, name) for name in SUMS], x)


@pytest.mark.parametrize(
    "x", [3, -2.5, True, [], [1, -2], [[1.0, 0.0], [2.0, math.nan]], (4.0,), np.float32(2), np.ones(())]
)
def test_stats_of_numbers_and_lists(x):
    assert_stats(stats_of(x), x)


def test_counts_are_whole_numbers():
    stats = stats_of([1.0, 0.0, math.inf])
    assert all(type(getattr(stats, name)) is int for name in ("count", "zeros", "nonfinite"))
    assert all(type(getattr(stats, name)) is float for name in ("sum", "abs", "sq", "max", "dot"))


@settings(deadline=None)  # the first call may compile
@given(st.lists(hnp.arrays(np.float32, st.integers(0, 300), elements=SMALL), max_size=6))
def test_merged_stats_are_those_of_the_whole(parts):
    merged = merge(stats_of(part) for part in parts)
    assert_stats(merged, np.concatenate([np.zeros(0, np.float32), *parts]))


@settings(deadline=None)  # the first call may compile
@given(st.lists(hnp.arrays(np.float64, st.integers(1, 50), elements=SMALL), min_size=1, max_size=6), st.randoms())
def test_the_order_of_merging_is_only_rounding(parts, random):
    stats = [stats_of(part) for part in parts]
    shuffled = random.sample(stats, len(stats))
    first, second = to_matrix([merge(stats), reduce(add, shuffled)])[:6].T
    np.testing.assert_allclose(first, second, rtol=1e-12, atol=1e-9)


def test_merging_nothing_gives_nothing():
    assert merge([]) == NOTHING
    assert_stats(NOTHING, [])


@pytest.mark.parametrize("special", [math.nan, math.inf])
@pytest.mark.parametrize("other", [1.0, math.nan, math.inf])
def test_special_values_merge_in_any_order(special, other):
    for x in ([special, other], [other, special]):
        assert_stats(merge(stats_of([value]) for value in x), x)


def test_dot_merges_where_every_part_has_one():
    with_dot = dataclasses.replace(stats_of([1.0]), dot=2.0)
    assert merge([with_dot, with_dot]).dot == 4.0
    assert math.isnan(merge([with_dot, stats_of([1.0])]).dot)


def test_adding_something_else_is_a_type_error():
    with pytest.raises(TypeError, match="unsupported operand"):
        stats_of([1.0]) + 1


def test_columns_go_both_ways():
    stats = [stats_of([1.0, -3.0]), None, stats_of([]), stats_of([math.nan])]
    matrix = to_matrix(stats)
    assert matrix.shape == (7, 4)
    back = from_matrix(matrix, [2, 5, 0, 1])
    assert back[1] is None
    assert [repr(each) for each in back] == [repr(each) for each in stats]  # equal would fail on NaN
    assert to_matrix([]).shape == (7, 0)


def test_six_rows_have_no_dot():
    (stats,) = from_matrix(to_matrix([stats_of([2.0])])[:6], [1])
    assert isinstance(stats, Stats)
    assert math.isnan(stats.dot)


def test_complex_is_refused():
    with pytest.raises(ArgumentError, match="an array of complex128 was given"):
        stats_of(1j)
