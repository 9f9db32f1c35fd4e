"""Every method of `normalize` on NumPy arrays and torch tensors, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import normal_methods
from normal_methods import Derivatives, Library, Values
from normkit import ArgumentError
from normkit.normalize import norm_except_dim, normalized, spectral_normalized, spectral_start, standardized

# torch's forward-mode derivatives warn of torch's own use of torch.jit.script when first asked for
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

bfloat16 = pytest.importorskip("ml_dtypes").bfloat16


def of_torch(x):
    return x.detach().double().numpy()


def grad_of_torch(function, x):
    x = x if x.requires_grad else x.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(x), x, create_graph=True)
    return found


NUMPY = Library(
    array=lambda x, dtype: np.asarray(x).astype(bfloat16 if dtype == "bfloat16" else dtype),
    numpy=lambda x: np.asarray(x).astype(np.float64),
    dtype=lambda x: x.dtype.name,
)
TORCH = Library(
    array=lambda x, dtype: torch.tensor(np.asarray(x, np.float64)).to(getattr(torch, dtype)),
    numpy=of_torch,
    dtype=lambda x: str(x.dtype).removeprefix("torch."),
    grad=grad_of_torch,
    total=lambda x, other: (x * torch.as_tensor(other)).sum(),
    compiled=lambda function: torch.compile(function, fullgraph=True, backend="aot_eager"),
)


class TestNumpy(Values):
    library = NUMPY


class TestTorch(Values, Derivatives):
    library = TORCH


def test_assert_near_can_fail():
    with pytest.raises(AssertionError):
        normal_methods.assert_near([1.0, 2.0], [1.0, 2.0 + 1e-11])


@pytest.mark.parametrize("per", ["tensor", 0, (0, 2)], ids=str)
@pytest.mark.parametrize("method", normal_methods.METHODS[:-1], ids=normal_methods.said)  # spectral's are partial
def test_torch_checks_both_derivatives_itself(method, per):
    w = torch.randn(2, 2, 2, dtype=torch.float64, generator=torch.manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: method.apply(x, per), [w], check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: method.apply(x, per), [w])


W = np.arange(6.0).reshape(2, 3)
REFUSED = {
    "g has shape (3,) beside v of shape (2, 3); expected (2, 1)": lambda: normalized(W, np.ones(3)),
    "g has shape (2, 1) beside v of shape (2, 3); expected (1, 3)": lambda: normalized(W, np.ones((2, 1)), 1),
    "g is 2.0; expected an array, with size 1 along the axes not kept": lambda: normalized(W, 2.0),
    "p=0.5: expected a number of at least 1, or math.inf": lambda: norm_except_dim(W, p=0.5),
    "p=nan: expected a number of at least 1": lambda: normalized(W, np.ones((2, 1)), p=math.nan),
    "p='fro': expected a number of at least 1": lambda: norm_except_dim(W, p="fro"),
    "per is 2, and an array of shape (2, 3) has no axis 2": lambda: standardized(W, 2),
    "per is (0, -2), which names an axis of shape (2, 3) twice": lambda: norm_except_dim(W, (0, -2)),
    "per is 'out', but an array of shape (2, 3) does not say which these are": lambda: standardized(W, "out"),
    "an array of int64 was given; weights of floating-point numbers": lambda: standardized(np.arange(3)),
    "an array was expected, of numpy, torch, jax, tensorflow, and a list was given": lambda: standardized([1.0]),
    "gain has shape (2,) beside w of shape (2, 3); expected (2, 1)": lambda: standardized(W, gain=np.ones(2)),
    "gain is 'x'; expected a number, or an array with the shape of g": lambda: standardized(W, gain="x"),
    "eps=-1: expected a variance of at least 0, such as 1e-5": lambda: standardized(W, eps=-1),
    "eps=nan: expected a variance": lambda: standardized(W, eps=math.nan),
    "u has shape (2,) beside w of shape (2, 3); expected (2, 1)": lambda: spectral_normalized(W, np.ones(2)),
    "u is None; expected an array": lambda: spectral_normalized(W, None),
    "iterations=-1: expected a whole number of at least 0": lambda: spectral_normalized(
        W, spectral_start(W), iterations=-1
    ),
    "iterations=1.5: expected a whole number": lambda: spectral_normalized(W, spectral_start(W), iterations=1.5),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refused(sentence):
    with pytest.raises(ArgumentError) as caught:
        REFUSED[sentence]()
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "longdouble"])
def test_other_formats_of_numpy(dtype):
    w = np.array([[3.0, 1 + 2 * np.finfo(np.dtype(dtype).newbyteorder("=")).eps], [0, 0]], dtype)
    length = norm_except_dim(w, p=1)
    assert length.dtype == w.dtype
    assert length.tolist() == np.abs(w).sum(1, keepdims=True).tolist()
    assert (normalized(w, length, p=1) == w).all()


def test_numbers_of_numpy_are_numbers():
    assert (norm_except_dim(W, p=np.int64(3)) == norm_except_dim(W, p=3)).all()
    assert (standardized(W, gain=np.float32(2), eps=np.float32(0.5)) == standardized(W, gain=2, eps=0.5)).all()


@pytest.mark.parametrize("p", [150.5, 1e4])
def test_the_power_of_an_entry_may_be_beyond_all_numbers(p):
    v = np.array([[1.9, -0.5, 0.0], [0, 0, 0], [1.9, 1.9, 0]], np.float32)
    expected = [[1.9], [0], [1.9 * 2 ** (1 / p)]]
    np.testing.assert_allclose(norm_except_dim(v, p=p), expected, rtol=1e-6)
    made = torch.tensor(v.astype(float)).requires_grad_()
    (grad,) = torch.autograd.grad(norm_except_dim(made, p=p).sum(), made)
    share = 2 ** (1 / p - 1)
    np.testing.assert_allclose(grad, [[1, 0, 0], [0, 0, 0], [share, share, 0]], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    "array", [lambda x: x.astype(np.float16), lambda x: torch.tensor(x).half()], ids=["np", "torch"]
)
def test_a_long_group_of_half_precision_does_not_overflow(array):
    w = np.full((1, 90_000), 0.1)  # the squares over that of the scale add up to more than 65504
    length = norm_except_dim(array(w))
    assert length.item() == pytest.approx(30.0, rel=2**-10)
    assert normalized(array(w), length)[0, 7].item() == pytest.approx(0.1, rel=2**-9)
