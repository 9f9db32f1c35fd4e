"""Spectral normalization: its bounds, its memory between steps, and starts that lead nowhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from normal_exact import directions, matrix
from normal_methods import drawn
from normkit.normalize import spectral_normalized, spectral_start

FLAT = np.linspace(1, 0.9, 24)  # singular values without a gap


def with_values(values, columns=30, seed=0):
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (len(values), columns))
    return left @ np.diag(values) @ right[: len(values)], left


def on_the_sphere(count, rows, seed=0):
    return np.random.default_rng(seed).normal(size=(count, rows, 1))


@pytest.mark.parametrize("per", [0, 1, (0, 2), "tensor"], ids=str)
def test_it_is_the_spectral_norm_of_the_matrix_in_the_end(per):
    w = drawn()
    kept = () if per == "tensor" else tuple(np.atleast_1d(per))
    values = np.linalg.svd(matrix(w, kept), compute_uv=False)
    found, sigma, _ = spectral_normalized(w, spectral_start(w, per), per, iterations=300)
    assert sigma == pytest.approx(values[0], rel=1e-12)
    assert found == pytest.approx(w / values[0], rel=1e-12)


@pytest.mark.parametrize("iterations", [0, 1, 5, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_lower_bound_always_and_never_below_an_entry(iterations, dtype):
    for seed in range(20):
        w = (drawn((6, 9), seed) ** 5).astype(dtype)
        found, sigma, _ = spectral_normalized(w, on_the_sphere(1, 6, seed)[0], iterations=iterations)
        s = np.linalg.svd(w.astype(float), compute_uv=False)[0]
        rounding = 20 * np.finfo(dtype).eps
        assert np.abs(w).max() * (1 - rounding) <= sigma <= s * (1 + rounding)
        assert np.abs(found).max() <= 1 + rounding


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_the_start_bounds_it_from_above_whatever_the_gap(iterations):
    w, left = with_values(FLAT)
    for u in on_the_sphere(200, 24):
        cosine = abs(float(left[:, 0] @ u[:, 0])) / np.linalg.norm(u)
        sigma = float(spectral_normalized(w, u, iterations=iterations)[1])
        assert sigma * cosine ** (-1 / (2 * iterations + 1)) >= 1 - 1e-12


def test_of_random_starts_few_fail_and_on_the_average_they_keep_to_the_law():
    values = np.array([1.0, *[0.97] * 199])  # many just below: the hardest for so few iterations
    k, rows, share = 20, len(values), 0.2
    starts = np.random.default_rng(1).normal(size=(4000, rows))
    moments = [(starts**2 * values ** (2 * power)).sum(1) for power in (2 * k, 2 * k + 1)]  # in the singular basis
    squared = moments[1] / moments[0]
    w, left = with_values(values, columns=rows)
    for n in range(3):
        sigma = spectral_normalized(w, (left @ starts[n])[:, None], iterations=k)[1]
        assert float(sigma) ** 2 == pytest.approx(squared[n], rel=1e-9)
    assert np.mean(1 - squared) <= 0.871 * math.log(rows) / k
    least = share * math.sqrt(math.pi / (2 * rows))
    failed = np.mean(np.sqrt(squared) * least ** (-1 / (2 * k + 1)) < 1)
    assert failed <= share
    cosines = np.abs(starts[:, 0]) / np.linalg.norm(starts, axis=1)
    assert np.mean(cosines < least) == pytest.approx(share, abs=0.03)


def test_some_singular_value_is_within_the_residual():
    w, _ = with_values(np.geomspace(1, 0.1, 12))
    s = np.linalg.svd(w, compute_uv=False)
    for iterations in (0, 1, 2, 8, 50):
        _, sigma, u = spectral_normalized(w, spectral_start(w), iterations=iterations)
        u = u / np.linalg.norm(u)
        v = w.T @ u / sigma
        residual = np.linalg.norm(w @ v - sigma * u)
        assert np.abs(s - sigma).min() <= residual / math.sqrt(2) + 1e-12


def test_a_fixed_start_may_never_find_the_largest():
    w, left = with_values([2.0, 1.0, 0.5])
    _, sigma, _ = spectral_normalized(w, left[:, 1:2], iterations=5)
    assert sigma == pytest.approx(1.0)


def test_warm_started_one_iteration_a_step_follows_a_weight():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(64, 64))
    u = spectral_start(w)
    for _ in range(150):
        w = w + 1e-3 * rng.normal(size=w.shape)
        _, sigma, u = spectral_normalized(w, u)
    assert 0.99 < sigma / np.linalg.svd(w, compute_uv=False)[0] <= 1


def test_without_iterations_u_stays():
    w = drawn((4, 5))
    u = directions(w, (0,), 2)[0][:, None]
    found, sigma, same = spectral_normalized(w, u, iterations=0)
    assert same == pytest.approx(u, rel=1e-15)
    assert found == pytest.approx(w / sigma)


STARTS = {"zero": np.zeros((3, 1)), "not a number": np.full((3, 1), np.nan), "in vain": np.array([[0], [0], [1.0]])}


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("iterations", [0, 1, 30])
def test_a_start_that_leads_nowhere_is_begun_anew(name, iterations):
    w = np.array([[1.0, -1.0], [-2.0, 1.0], [0.0, 0.0]])
    found, sigma, u = spectral_normalized(w, STARTS[name], iterations=iterations)
    s = np.linalg.svd(w, compute_uv=False)[0]
    assert 2 <= sigma <= s * (1 + 1e-12)
    assert np.abs(found).max() <= 1
    assert np.linalg.norm(u) == pytest.approx(1)


def test_a_row_taken_away_does_not_blow_up_the_rest():
    w = np.diag([5.0, 1.0, 1.0])
    u = spectral_normalized(w, spectral_start(w), iterations=60)[2]
    w[0] = 0
    found, sigma, _ = spectral_normalized(w, u, iterations=0)
    assert sigma == 1
    assert found == pytest.approx(w)


def test_a_weight_of_nan_leaves_u():
    w, u = np.full((3, 2), np.nan), spectral_start(np.ones((3, 2)))
    _, sigma, same = spectral_normalized(w, u)
    assert np.isnan(sigma)
    assert same == pytest.approx(u / np.linalg.norm(u))


def test_half_precision_keeps_its_u_in_float32():
    w = torch.tensor(drawn((4, 5))).bfloat16()
    found, sigma, u = spectral_normalized(w, spectral_start(w))
    assert (found.dtype, sigma.dtype, u.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert (sigma.shape, u.shape) == ((), (4, 1))


def test_as_torchs_own_from_the_same_start():
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(5, 4).double())
    own = layer.parametrizations.weight[0]
    layer.eval()
    _, sigma, _ = spectral_normalized(layer.parametrizations.weight.original, own._u[:, None], iterations=0)
    vectors = own._u @ layer.parametrizations.weight.original @ own._v
    assert vectors.item() == pytest.approx(sigma.item(), rel=1e-2)
