"""Weight standardization: what does not cancel, what `eps` and `gain` mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import normal_methods
from normal_exact import standard
from normkit.normalize import standardized


@pytest.mark.parametrize("value", [0.1, -0.1, 1e25, 3e38, 1e-23])
def test_equal_entries_give_exactly_zero(value):
    w = np.full((2, 7), value, np.float32)
    w[1, 3] = 0
    found = standardized(w)
    assert not found[0].any()
    assert found[1] == pytest.approx(standard(w, (0,))[1], abs=1e-6)


def test_a_single_entry_is_its_own_mean():
    assert not standardized(np.ones((3, 1))).any()


def test_nothing_cancels_where_the_mean_is_large():
    w = (1000 + 1e-2 * normal_methods.drawn((3, 400))).astype(np.float32)
    naive = np.mean(w * w, axis=1) - np.mean(w, axis=1) ** 2
    assert np.abs(naive / w.astype(float).var(axis=1) - 1).min() > 0.9  # not a single digit is right
    normal_methods.assert_near(standardized(w), standard(w, (0,)), "float32")


def test_eps_is_a_variance():
    w = np.array([[-3.0, 3.0]])
    assert standardized(w, eps=16) == pytest.approx(w / 5)


def test_eps_beside_weights_too_small_for_it():
    w = np.array([[-1e-23, 1e-23]], np.float32)
    assert standardized(w, eps=1e-4) == pytest.approx(100 * w, rel=1e-5)


def test_the_gain_is_the_length_of_each_group():
    w, gain = normal_methods.drawn(), np.array([1.0, 2.0, 0.0, -3.0]).reshape(4, 1, 1)
    found = standardized(w, gain=gain)
    assert np.sqrt((found**2).sum((1, 2))) == pytest.approx(np.abs(gain.ravel()))
    assert found[3] == pytest.approx(-standardized(w)[3] * 3 / np.sqrt(15))


def test_a_gain_can_be_trained():
    w = torch.tensor(normal_methods.drawn((3, 4)))
    w[1] = 0.25
    gain = torch.full((3, 1), 2.0, dtype=torch.float64, requires_grad=True)
    standardized(w, gain=gain).pow(2).sum().backward()
    assert gain.grad.ravel().tolist() == pytest.approx([4.0, 0.0, 4.0])
