"""Lengths and biases from a first batch: the formula alone, on arrays."""

import numpy as np
import pytest
import torch

from normkit.normalize import started

T = np.random.default_rng(2).normal(3.0, 2.0, (9, 4, 5))


@pytest.mark.parametrize("array", [np.asarray, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize(("per", "others"), [(1, (0, 2)), (-1, (0, 1)), ((1, 2), (0,))], ids=str)
def test_each_channel_has_mean_0_and_variance_1(array, per, others):
    g, b, constant = (np.asarray(each) for each in started(array(T), per))
    np.testing.assert_allclose(g, 1 / T.std(others, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(b, -T.mean(others, keepdims=True) / T.std(others, keepdims=True), rtol=1e-13)
    assert not constant.any()


def test_a_large_mean_cancels_nothing():
    g, _, _ = started(T + 1e6, 1)
    np.testing.assert_allclose(g, 1 / T.std((0, 2), keepdims=True), rtol=1e-8)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e20, np.nan, np.inf])
def test_a_channel_that_has_no_variance_is_told(value):
    t = T.copy()
    t[:, 2] = value
    with np.errstate(invalid="ignore"):
        g, _, constant = started(t, 1)
    assert constant.ravel().tolist() == [False, False, True, False]
    assert g[0, 2, 0] == 1
