"""Limits on lengths and singular values, on NumPy arrays and torch tensors, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import pulled
from normal_methods import drawn
from normkit import ArgumentError
from normkit.constrain import hold, max_norm, min_max_norm, spectral_bound, spectral_cap, unit_norm
from pulled_libraries import FEW, NUMPY, TORCH
from pulled_methods import CompiledSteps, Limits
from pulled_rows import LIMITS


class TestNumpyLimits(Limits):
    library = NUMPY


class TestCompiledLimits(CompiledSteps):
    library, rows = TORCH, [LIMITS[2], LIMITS[4]]


class TestTorchLimits(Limits):
    library = TORCH
    pers, dtypes = FEW


@pytest.mark.parametrize("row", LIMITS, ids=lambda row: row.name)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_thousand_applications_change_no_bit(row, dtype):
    first = w = row.apply(drawn().astype(dtype), 0, None, 1.0)
    for _ in range(1000 if row.by_group else 100):
        w = row.apply(w, 0, None, 1.0)
    np.testing.assert_array_equal(w, first)


@pytest.mark.parametrize(("shape", "per"), [((3,), 0), ((3,), "tensor"), ((), "tensor"), ((0, 3), 0), ((3, 2, 2), 0)])
def test_a_spectral_cap_keeps_every_shape(shape, per):
    capped = spectral_cap(np.ones(shape), 0.1, per)
    assert capped.shape == shape
    assert np.sqrt((capped**2).sum()) == pytest.approx(0.1 if capped.size else 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_of_many_rows_none_is_over_its_limit_and_none_is_touched_twice(dtype):
    w = drawn((3000, 17)).astype(dtype)
    once = max_norm(w, 1.0)
    assert (pulled.lengths(once, (0,)) <= 1).all()
    np.testing.assert_array_equal(max_norm(once, 1.0), once)
    within = pulled.lengths(w, (0,))[:, 0] <= 1
    np.testing.assert_array_equal(once[within], w[within])


@pytest.mark.parametrize("target", [np.array([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.0], [3.0]])])
def test_each_row_held_at_its_own_length(target):
    w = drawn((3, 8))
    w = torch.tensor(w) if isinstance(target, torch.Tensor) else w
    held = hold(w, target)
    assert pulled.lengths(held, (0,))[:, 0] == pytest.approx([1, 2, 3], rel=1e-14)
    assert (hold(held, target) == held).all()


SIZES = [(3, 4), (40, 40), (120, 30), (2, 3, 4), (7,)]


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_the_bound_is_never_below_the_largest_singular_value_and_not_far_above(shape, dtype):
    for seed in range(5):
        w = drawn(shape, seed).astype(dtype)
        rank = min(pulled.matrix(w).shape)
        largest = pulled.sigmas(w)[0]
        assert largest <= float(spectral_bound(w)) <= largest * rank ** (1 / 32) * (1 + 1e-11)


def test_the_bound_where_all_singular_values_are_equal_and_where_there_is_one():
    turned = np.linalg.qr(drawn((64, 64)))[0]
    assert 1 <= spectral_bound(turned) <= 64 ** (1 / 32) * (1 + 1e-11)
    assert spectral_bound(np.outer(np.arange(1.0, 9), np.ones(5))) == pytest.approx(math.sqrt(204 * 5), rel=1e-11)
    assert np.isnan(spectral_bound(np.array([[1.0, np.inf]])))
    assert spectral_bound(np.zeros((0, 3))) == spectral_bound(np.zeros((2, 3))) == 0


@pytest.mark.parametrize("ratio", [1e-9, 1e-3, 0.5, 0.999999])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_singular_value_over_the_cap_by_an_exact_svd(ratio, dtype):
    w = drawn((30, 20)).astype(dtype)
    limit = ratio * pulled.sigmas(w)[0]
    capped = spectral_cap(w, limit)
    assert limit * (1 - 1e-5) <= pulled.sigmas(capped)[0] <= limit
    np.testing.assert_array_equal(spectral_cap(capped, limit), capped)
    np.testing.assert_array_equal(spectral_cap(w, pulled.sigmas(w)[0] * (1 + 1e-12)), w)


def test_singular_values_within_the_cap_and_all_directions_stay():
    w = drawn((12, 9))
    u, sigma, v = np.linalg.svd(w, full_matrices=False)
    np.testing.assert_allclose(u.T @ spectral_cap(w, 2.5) @ v.T, np.diag(np.minimum(sigma, 2.5)), atol=1e-12)


def test_an_svd_is_made_only_where_the_bound_is_above_the_limit(monkeypatch):
    made = []
    exact = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda x, **more: made.append(x) or exact(x, **more))
    w = np.diag([4.0, 1.0, 0.5])
    assert spectral_cap(w, 4.01) is w
    assert not made
    spectral_cap(w, 3.9)
    assert len(made) == 1


@settings(max_examples=80, deadline=None)
@given(
    arrays(np.float32, (3, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    st.floats(2.0**-100, 2.0**100),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_whatever_the_numbers_the_second_application_changes_no_bit(w, limit, dtype):
    with np.errstate(over="ignore"):
        w = w.astype(dtype)
    for once, within in (
        (lambda w: max_norm(w, limit), lambda length: length <= limit),
        (lambda w: hold(w, limit), None),
        (lambda w: min_max_norm(w, (limit / 2, limit)), lambda length: length <= limit),
    ):
        with np.errstate(over="ignore"):  # a length beyond float16 can be asked for
            found = once(w)
            again = once(found)
        if np.isfinite(found).all():
            np.testing.assert_array_equal(again, found)
            assert within is None or within(pulled.lengths(found, (0,))).all()


W = drawn((2, 3))
REFUSED = {
    "max_norm=0: expected a length, a finite number above 0": lambda: max_norm(W, 0),
    "max_norm=True: expected a length": lambda: max_norm(W, True),
    "max_norm='1': expected a length": lambda: max_norm(W, "1"),
    "max_norm=inf: expected a length": lambda: max_norm(W, math.inf),
    "max_norm=nan: expected a length": lambda: max_norm(W, math.nan),
    "hold=-1.0: expected a length": lambda: hold(W, -1.0),
    "spectral_cap=0.0: expected a length, a finite number above 0": lambda: spectral_cap(W, 0.0),
    "min_max_norm=(2, 1): expected two lengths (lo, hi) with 0 <= lo <= hi": lambda: min_max_norm(W, (2, 1)),
    "min_max_norm=1.0: expected two lengths": lambda: min_max_norm(W, 1.0),
    "min_max_norm=(0, 0): expected two lengths": lambda: min_max_norm(W, (0, 0)),
    "min_max_norm=(0, inf): expected two lengths": lambda: min_max_norm(W, (0, math.inf)),
    "min_max_norm=(1, 2, 3): expected two lengths": lambda: min_max_norm(W, (1, 2, 3)),
    "target has shape (2,); expected a number, or one for each group: (2, 1)": lambda: hold(W, np.ones(2)),
    "per is 2, and an array of shape (2, 3) has no axis 2": lambda: spectral_bound(W, 2),
    "an array of int64 was given; weights of floating-point numbers": lambda: unit_norm(np.arange(3)),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refused(sentence):
    with pytest.raises(ArgumentError) as caught:
        REFUSED[sentence]()
    assert str(caught.value).startswith(sentence)
