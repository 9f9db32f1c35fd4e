"""Operator norms against matrices whose singular values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from normkit.errors import ArgumentError
from normkit.norms import norm
from normkit.spectrum import matrix, nuclear, singular_values, spectral, stable_rank

SIGMA = np.array([5.0, 3.0, 1.0, 1e-3])


def with_singular_values(sigma, rows=6, columns=5):
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.standard_normal((rows, len(sigma))))[0]
    v = np.linalg.qr(rng.standard_normal((columns, len(sigma))))[0]
    return u * sigma @ v.T


@pytest.mark.parametrize("turn", [lambda w: w, lambda w: w.T, lambda w: w[::-1]])
def test_known_singular_values(turn):
    w = turn(with_singular_values(SIGMA))
    assert spectral(w) == pytest.approx(5.0, rel=1e-13)
    assert nuclear(w) == pytest.approx(SIGMA.sum(), rel=1e-13)
    assert stable_rank(w) == pytest.approx((SIGMA**2).sum() / 25.0, rel=1e-13)
    np.testing.assert_allclose(singular_values(w)[:4], SIGMA, rtol=1e-11)


def test_half_precision_is_taken_in_float64():
    w = with_singular_values(SIGMA).astype(np.float16)
    assert spectral(w) == pytest.approx(np.linalg.norm(w.astype(np.float64), 2), rel=1e-13)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scales_far_from_1(scale):
    w = np.eye(3) * scale
    assert spectral(w) == pytest.approx(scale)
    assert stable_rank(w) == pytest.approx(3.0)


@pytest.mark.parametrize("kind", ["spectral", "nuclear", "stable_rank"])
def test_zero_empty_and_not_finite(kind):
    assert norm(np.zeros((3, 4)), kind) == 0.0
    assert norm(np.zeros((0, 4)), kind) == 0.0
    for value in (math.nan, math.inf):
        assert math.isnan(norm([[1.0, 2.0], [3.0, value]], kind))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
@pytest.mark.parametrize("kind", ["spectral", "nuclear", "stable_rank"])
def test_what_is_no_matrix_is_refused(kind, shape):
    with pytest.raises(ArgumentError, match="was given where a matrix was expected; reshape it to") as raised:
        norm(np.ones(shape), kind)
    assert str(shape) in str(raised.value)


@pytest.mark.parametrize(
    ("shape", "out_axes", "in_axes", "expected"),
    [
        ((64, 3, 5, 4), (0,), (1,), (64, 60)),
        ((3, 64, 5, 4), (1,), (0,), (64, 60)),
        ((5, 4, 3, 64), (3,), (2,), (64, 60)),
        ((7,), (0,), (), (7, 1)),
        ((2, 3, 4), (0, 1), (2,), (6, 4)),
        ((0, 3), (0,), (1,), (0, 0)),
    ],
)
def test_matrix(shape, out_axes, in_axes, expected):
    w = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    found = matrix(w, out_axes, in_axes)
    assert found.shape == expected
    assert found.dtype == np.float64
    first_output = w[tuple(0 if axis in out_axes else slice(None) for axis in range(w.ndim))] if w.size else np.zeros(0)
    if w.size:
        assert sorted(found[0]) == sorted(first_output.ravel())
