"""Addresses are remembered between calls, and every change of the tensors is noticed."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import reference

torch = pytest.importorskip("torch", reason="torch is not installed")

from normkit.ops import torch as ops

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def float32(*shape):
    return torch.randn(*shape)


def assert_cached_sums(tensors, cache):
    (matrix,) = ops.sums(tensors, cache).wait()
    for column, tensor in zip(matrix.T, tensors, strict=True):
        assert np.isnan(column).all() if tensor is None else reference.assert_sums(column, tensor) is None


def test_a_cached_table_is_used_again_and_sees_new_values():
    tensors, cache = [float32(5), float32(700)], ops.Cache()
    assert_cached_sums(tensors, cache)
    table = cache.tables[0]
    tensors[0].mul_(3)
    assert_cached_sums(tensors, cache)
    assert cache.tables[0] is table


CHANGES = {
    "another address": lambda t: float32(5),
    "shorter in place": lambda t: t[:3],
    "longer": lambda t: float32(50),
    "another dtype": lambda t: t.double(),
    "in steps": lambda t: float32(10)[::2],
    "transposed": lambda t: float32(5, 1).t(),
    "half in the same place": lambda t: t,
    "sparse": lambda t: torch.eye(5).to_sparse(),
    "integers": lambda t: torch.arange(5),
    "none": lambda t: None,
    "empty": lambda t: float32(0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_cache_notices(change):
    tensors, cache = [float32(5), float32(6)], ops.Cache()
    assert_cached_sums(tensors, cache)
    tensors[0] = CHANGES[change](tensors[0])
    assert_cached_sums(tensors, cache)
    tensors[0] = float32(5)
    assert_cached_sums(tensors, cache)


def test_a_cache_tells_bfloat16_from_float16_in_the_same_place():
    parameter, cache = torch.nn.Parameter(float32(5).half()), ops.Cache()
    assert_cached_sums([parameter], cache)
    with torch.no_grad():
        again = parameter.view(torch.bfloat16)
    assert again.data_ptr() == parameter.data_ptr()
    assert_cached_sums([again], cache)


def test_a_cache_keeps_no_tensor_alive():
    tensor, cache = float32(5), ops.Cache()
    ops.sums([tensor], cache)
    gone = weakref.ref(tensor)
    del tensor
    assert gone() is None


def test_gradients_may_move_and_change_their_order():
    weights, cache = [float32(4, 5), float32(3)], ops.Cache()
    for order in (lambda g: g, lambda g: g.t().contiguous().t(), lambda g: g):
        grads = [order(float32(4, 5)), float32(3)]
        (matrix,) = ops.grad_sums(grads, weights, None, cache).wait()
        for column, grad, weight in zip(matrix.T, grads, weights, strict=True):
            reference.assert_sums(column, grad, weight)


def test_a_list_may_grow_and_shrink():
    cache = ops.Cache()
    for count in (3, 4, 2, 0, 1):
        assert_cached_sums([float32(7) for _ in range(count)], cache)
