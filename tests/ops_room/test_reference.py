"""The oracle itself can be wrong in no obvious way, and its assertions can fail."""

import numpy as np
import pytest

import reference


def test_sums_by_hand():
    assert reference.sums([3.0, -4.0, 0.0, -0.0], [1.0, 2.0, 3.0, 4.0]) == {
        "sum": -1.0,
        "abs": 7.0,
        "sq": 25.0,
        "max": 4.0,
        "zeros": 2,
        "nonfinite": 0,
        "dot": -5.0,
    }


@pytest.mark.parametrize(
    ("row", "wrong", "said"),
    [(0, 0.5, "sum is"), (2, 25.0 + 1e-9, "sq is"), (4, 1.0, "zeros is 1.0, not 0"), (6, 0.0, "there is no second")],
)
def test_assert_sums_can_fail(row, wrong, said):
    column = np.array([-1.0, 7.0, 25.0, 4.0, 0.0, 0.0, np.nan])
    reference.assert_sums(column, [3.0, -4.0])
    column[row] = wrong
    with pytest.raises(AssertionError, match=said):
        reference.assert_sums(column, [3.0, -4.0])


@pytest.mark.parametrize(("value", "expected"), [(1.0, np.nan), (np.nan, 1.0), (np.inf, np.nan), (-np.inf, np.inf)])
def test_assert_close_tells_nan_from_numbers(value, expected):
    with pytest.raises(AssertionError, match=f"value is {value}"):
        reference.assert_close(value, expected, 1.0)
