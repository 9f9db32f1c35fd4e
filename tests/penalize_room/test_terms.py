"""The terms of a penalty and their proximal steps on NumPy arrays and torch tensors, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import pulled
from normal_methods import drawn
from normkit import ArgumentError
from normkit.penalize import group, group_threshold, l1, l2, orthogonality, soft_threshold, spectral, toward
from pulled_libraries import FEW, NUMPY, TORCH
from pulled_methods import CompiledSteps, CompiledTerms, Steps, TermDerivatives, Terms
from pulled_rows import TERMS, THRESHOLDS

# torch's forward-mode derivatives warn of torch's own use of torch.jit.script when first asked for
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


class TestNumpyTerms(Terms):
    library, rows = NUMPY, TERMS


class TestTorchTerms(Terms, TermDerivatives):
    library, rows = TORCH, TERMS
    pers, dtypes = FEW


class TestNumpyThresholds(Steps):
    library, rows = NUMPY, THRESHOLDS


class TestCompiledTerms(CompiledTerms):
    library, rows = TORCH, TERMS[2:3]


class TestCompiledThresholds(CompiledSteps):
    library, rows = TORCH, THRESHOLDS[1:]


class TestTorchThresholds(Steps):
    library, rows = TORCH, THRESHOLDS
    pers, dtypes = FEW


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("coefficient", [0.25, 0.1, 1e-4, 3.0])
def test_the_gradient_of_l2_is_rounded_once(dtype, coefficient):
    w = torch.tensor(drawn(), dtype=dtype).requires_grad_()
    (found,) = torch.autograd.grad(coefficient * l2(w), w)
    assert torch.equal(found, coefficient * w)


@pytest.mark.parametrize("row", TERMS[2:5], ids=lambda row: row.name)
def test_torch_checks_both_derivatives_itself(row):
    w = torch.randn(2, 2, 2, dtype=torch.float64, generator=torch.manual_seed(0)).requires_grad_()
    apply = lambda x: row.apply(x, 0, torch.as_tensor, None)  # noqa: E731
    assert torch.autograd.gradcheck(apply, [w], check_forward_ad=True)
    assert torch.autograd.gradgradcheck(apply, [w])


@pytest.mark.parametrize("scale", [1e-23, 1e25])
def test_groups_out_of_reach_of_squares(scale):
    w = (drawn() * scale).astype(np.float32)
    assert float(group(w)) == pytest.approx(pulled.penalty_group(w), rel=1e-6)
    reach = scale / 10
    assert group_threshold(w, reach) == pytest.approx(pulled.group_threshold(w, reach), rel=1e-5, abs=scale * 1e-6)


def test_a_proximal_step_is_where_its_kuhn_tucker_conditions_hold():
    """x = prox(w) where w - x is threshold times a subgradient of the term at x."""
    w, threshold = drawn((6, 4)), 0.4
    x = soft_threshold(w, threshold)
    assert 0 < np.count_nonzero(x) < x.size
    np.testing.assert_allclose((w - x)[x != 0], threshold * np.sign(x)[x != 0], rtol=1e-12)
    assert (np.abs(w)[x == 0] <= threshold).all()
    w[2] /= 20
    x, lengths = group_threshold(w, threshold), pulled.lengths(w, (0,))[:, 0]
    gone = ~x.any(axis=1)
    assert gone.tolist() == (lengths <= threshold * 2).tolist()
    assert 0 < gone.sum() < 6
    np.testing.assert_allclose((w - x)[~gone], threshold * pulled.gradient_group(x)[~gone], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (3, 4), elements=st.floats(-1e6, 1e6, allow_subnormal=False)),
    st.floats(0, 10, allow_subnormal=False),
)
def test_proximal_steps_never_lengthen_and_never_cross_zero(w, threshold):
    for x in (soft_threshold(w, threshold), group_threshold(w, threshold)):
        assert (np.abs(x) <= np.abs(w)).all()
        assert (x * w >= 0).all()
    np.testing.assert_array_equal(soft_threshold(w, 0.0), w)


W = np.arange(6.0).reshape(2, 3)
REFUSED = {
    "an array was expected, of numpy, torch, jax, tensorflow, and a list was given": lambda: l1([1.0]),
    "an array of int64 was given; weights of floating-point numbers": lambda: l2(np.arange(3)),
    "per is 2, and an array of shape (2, 3) has no axis 2": lambda: group(W, 2),
    "per is 'out', but an array of shape (2, 3) does not say which these are": lambda: orthogonality(W, "out"),
    "the reference is of shape (3,) beside a weight of shape (2, 3); expected one like it": lambda: toward(W, W[0]),
    "the reference is float beside a weight of shape (2, 3)": lambda: toward(W, 0.0),
    "the reference is NoneType beside a weight": lambda: toward(W, None),
    "u has shape (2,) beside w of shape (2, 3); expected (2, 1)": lambda: spectral(W, np.ones(2)),
    "iterations=-1: expected a whole number": lambda: spectral(W, np.ones((2, 1)), iterations=-1),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refused(sentence):
    with pytest.raises(ArgumentError) as caught:
        REFUSED[sentence]()
    assert str(caught.value).startswith(sentence)


def test_lengths_shrink_by_group_as_what_they_are_the_lengths_of():
    w = np.random.default_rng(3).normal(size=(5, 7))
    lengths = np.linalg.norm(w, axis=1, keepdims=True)
    found = group_threshold(lengths, 0.9, (0, 1), entries=7)
    np.testing.assert_allclose(found, np.linalg.norm(group_threshold(w, 0.9), axis=1, keepdims=True), atol=1e-14)
    assert 0 < np.count_nonzero(found) < 5
