"""The twelve signs: a fall looks like a fall, a percent looks flat, and what is not a number is seen."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.report.look import BLOCKS, Look
from normkit.report.trend import heights, slices, sparkline

STEPS = np.arange(0, 121, 10)
THERE = np.ones(13, dtype=bool)


def drawn(values, steps=STEPS, there=None):
    values = np.asarray(values, dtype=float)
    return sparkline(np.asarray(steps), values, np.ones(len(values), dtype=bool) if there is None else there, Look())


@pytest.mark.parametrize(
    ("values", "signs"),
    [
        (np.ones(13), "▁" * 12),
        (np.zeros(13), "▁" * 12),
        (np.linspace(1, 0.987, 13), "▁" * 12),
        (np.linspace(1, 1.013, 13), "▁" * 12),
        (np.linspace(1, 2, 13), "▁▂▂▃▃▄▅▅▆▆▇█"),
        (np.linspace(2, 1, 13), "█▇▇▆▆▅▄▄▃▃▂▁"),
        (np.linspace(0, 1e-9, 13), "▁▂▂▃▃▄▅▅▆▆▇█"),
        ([1] * 6 + [np.nan] * 7, "▁" * 6 + "×" * 6),
        ([1] * 6 + [np.inf] + [1] * 6, "▁" * 6 + "×" + "▁" * 5),
    ],
)
def test_courses(values, signs):
    assert drawn(values) == signs


def test_a_small_fall_starts_higher_than_it_ends():
    signs = drawn(np.linspace(1, 0.9, 13))
    assert BLOCKS.index(signs[0]) > BLOCKS.index(signs[-1]) == 0
    assert BLOCKS.index(signs[0]) < 4


def test_slices_are_equal_ranges_of_steps_not_of_records():
    steps = np.array([*range(100), 1200])
    values = np.where(steps < 100, 1.0, 2.0)
    assert slices(steps, values, np.ones(101, dtype=bool)) == [1.0] * 11 + [2.0]


def test_few_records_make_few_slices():
    assert drawn([1, 2], [0, 10]) == "▁█"
    assert drawn([1], [0]) == "▁"


def test_absent_is_blank():
    there = THERE.copy()
    there[:6] = False
    assert drawn(np.where(there, 1.0, np.nan), there=there) == " " * 6 + "▁" * 6
    assert drawn(np.full(13, np.nan), there=np.zeros(13, dtype=bool)) == ""


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_heights_do_not_depend_on_the_scale(scale):
    means = [0.5 * scale, scale, 0.7 * scale]
    assert heights(means, means[0]) == heights([0.5, 1.0, 0.7], 0.5)


def test_a_slice_without_a_record_takes_the_last_record_before_it():
    steps = np.array([0, 1, 2, 3, 4, 100])
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    assert slices(steps, values, np.ones(6, dtype=bool), count=4) == [3.0, 5.0, 5.0, 9.0]


def test_slices_may_take_the_median():
    values = np.array([1.0, 1.0, 10.0, 7.0])
    assert slices(np.array([0, 1, 2, 100]), values, np.ones(4, dtype=bool), count=2, of=np.median) == [1.0, 7.0]
