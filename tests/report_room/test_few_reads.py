"""How often a recording is read for its findings and its table: each matrix takes a pass over the file."""

from __future__ import annotations

import numpy as np
import pytest

import made_up
from normkit import diagnose
from normkit.report import Look, show


class Counting:
    """A recording that notes which of its matrices were asked for."""

    def __init__(self, made):
        self.made, self.asked = made, []

    def __getattr__(self, name):
        return getattr(self.made, name)

    def matrix(self, norm="l2", quantity="weight"):
        self.asked.append((norm, quantity))
        return self.made.matrix(norm, quantity)

    def sums(self, name, quantity="weight"):
        self.asked.append((name, quantity))
        return self.made.sums(name, quantity)


def assert_few(counting):
    assert len(counting.asked) == len(set(counting.asked)) <= 3


def test_assert_few_can_fail():
    counting = Counting(made_up.transformer(1))
    for _ in range(2):
        counting.matrix()
    with pytest.raises(AssertionError):
        assert_few(counting)


def test_a_healthy_run_is_judged_by_few_matrices():
    counting = Counting(made_up.transformer(2))
    assert diagnose.findings(counting) == []
    assert_few(counting)


def test_findings_and_table_share_what_was_read():
    counting = Counting(made_up.transformer(2))
    assert "no findings" in show(counting, Look(width=120))
    assert_few(counting)


def test_an_overflow_of_the_sum_of_squares_is_no_infinity():
    made = made_up.transformer(1)
    made.all_sums("weight")[3, 2, :] = np.inf
    assert [finding.rule for finding in diagnose.findings(made)] == []


def test_an_underflow_of_the_sum_of_squares_is_no_zero():
    made = made_up.transformer(1)
    made.all_sums("weight")[:, 2, 0] = 0.0
    assert [finding.rule for finding in diagnose.findings(made)] == []


@pytest.mark.parametrize("quantity", ["weight", "grad", "update"])
def test_what_is_not_finite_is_the_same_however_it_is_read(quantity, monkeypatch):
    made = made_up.digits()
    made.weights[3][0] = np.full((16, 1, 3, 3), np.nan)
    made.grads[4][1] = np.array([np.inf] + [0.0] * 15)
    made.grads[5][2] = None
    few = diagnose.Columns(made).matrix("nonfinite", quantity)
    np.testing.assert_array_equal(few, made.matrix("nonfinite", quantity))
    counting = Counting(made)
    monkeypatch.setattr("normkit.diagnose.columns.FEW", 0)
    np.testing.assert_array_equal(diagnose.Columns(counting).matrix("nonfinite", quantity), few)
    assert ("nonfinite", quantity) in counting.asked
