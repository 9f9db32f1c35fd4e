"""torch tensors against the oracle, on the CPU path and on the device path (forced on CPU tensors)."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from normkit.errors import ArgumentError
from normkit.ops import ops_of

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from normkit.ops import torch as ops
from normkit.ops import torch_columns, torch_device

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


@pytest.fixture(params=["cpu", "device", "device, in chunks"])
def path(request, monkeypatch):
    if request.param != "cpu":
        monkeypatch.setattr(torch_columns, "on_device", lambda t: True)
    if request.param == "device, in chunks":
        monkeypatch.setattr(torch_device, "CHUNK", 7)
    return request.param


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def sparse(shape=(6, 4)):
    where = torch.tensor([[0, 2, 2, 5], [1, 0, 0, 3]])  # one place twice: not coalesced
    return torch.sparse_coo_tensor(where, torch.tensor([1.0, 2.0, 3.0, 0.0]), shape)


TENSORS = {
    "float32": lambda: torch.randn(30, 40),
    "float64": lambda: torch.randn(30, 40, dtype=torch.float64),
    "float16": lambda: torch.randn(30, 40).half(),
    "bfloat16": lambda: torch.randn(30, 40).bfloat16(),
    "parameter": lambda: torch.nn.Parameter(torch.randn(3)),
    "result of autograd": lambda: torch.nn.Parameter(torch.randn(3)) * 2,
    "transposed": lambda: torch.randn(3, 4).t(),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "every second": lambda: torch.randn(20)[::2],
    "expanded": lambda: torch.randn(3, 1).expand(3, 5),
    "0-d": lambda: torch.tensor(2.5),
    "empty": lambda: torch.randn(0, 3),
    "int64": lambda: torch.arange(-3, 9),
    "uint8": lambda: torch.arange(9, dtype=torch.uint8),
    "bool": lambda: torch.randn(9) > 0,
    "float8_e4m3fn": lambda: torch.randn(33).to(torch.float8_e4m3fn),
    "float8_e5m2": lambda: torch.randn(33).to(torch.float8_e5m2),
    "sparse": sparse,
    "sparse rows": lambda: torch.sparse_coo_tensor([[1, 3]], torch.randn(2, 4), (6, 4)),
    "sparse csr": lambda: sparse().coalesce().to_sparse_csr(),
    "negated view": lambda: torch._neg_view(torch.randn(5)),
    "specials": lambda: torch.tensor([0.0, -0.0, 1.0, float("inf"), float("-inf"), float("nan")]),
    "infinities": lambda: torch.tensor([0.0, float("inf"), float("inf")]),
    "large": lambda: torch.randn(700_000),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("name", TENSORS)
def test_sums(path, name):
    tensor = TENSORS[name]()
    (matrix,) = ops.sums([None, tensor, None]).wait()
    assert np.isnan(matrix[:, [0, 2]]).all()
    reference.assert_sums(matrix[:, 1], tensor)


def test_sums_of_everything_together(path):
    tensors = [make() for make in TENSORS.values() if make is not TENSORS["sparse csr"]]
    (matrix,) = ops.sums(tensors, ops.Cache()).wait()
    assert matrix.shape == (6, len(tensors))
    for column, tensor in zip(matrix.T, tensors, strict=True):
        reference.assert_sums(column, tensor)


def test_nothing_at_all(path):
    assert ops.sums([]).wait()[0].shape == (6, 0)
    assert ops.grad_sums([], [], []).wait()[0].shape == (7, 0)
    assert [matrix.shape for matrix in ops.step_sums([], []).wait()] == [(6, 0), (7, 0)]


def float32(*shape):
    return torch.randn(*shape)


PAIRS = {  # gradient, weight
    "same": lambda: (float32(30, 40), float32(30, 40)),
    "large": lambda: (float32(70_000), float32(70_000)),
    "bfloat16": lambda: (float32(300).bfloat16(), float32(300).bfloat16()),
    "two dtypes": lambda: (float32(5, 6).half(), float32(5, 6)),
    "two half dtypes": lambda: (float32(5, 6).half(), float32(5, 6).bfloat16()),
    "weight transposed": lambda: (float32(4, 5), float32(5, 4).t()),
    "gradient transposed": lambda: (float32(5, 4).t(), float32(4, 5)),
    "both transposed": lambda: (float32(5, 4).t(), float32(5, 4).t()),
    "channels_last": lambda: (float32(2, 3, 4, 5), float32(2, 3, 4, 5).to(memory_format=torch.channels_last)),
    "weight in steps": lambda: (float32(10), float32(20)[::2]),
    "sparse": lambda: (sparse(), float32(6, 4)),
    "sparse rows": lambda: (torch.sparse_coo_tensor([[1, 3]], float32(2, 4), (6, 4)), float32(6, 4)),
    "no gradient": lambda: (None, float32(6, 4)),
    "empty": lambda: (float32(0), float32(0)),
    "0-d": lambda: (torch.tensor(2.0), torch.tensor(3.0)),
    "nan": lambda: (torch.tensor([float("nan"), 1.0]), torch.tensor([0.0, float("inf")])),
}


@pytest.mark.parametrize("name", PAIRS)
def test_grad_sums(path, name):
    grad, weight = PAIRS[name]()
    copy = torch.full_like(weight, 9.0)
    for copies in (None, [copy]):
        (matrix,) = ops.grad_sums([grad], [weight], copies).wait()
        assert matrix.shape == (7, 1)
        if grad is None:
            assert np.isnan(matrix).all()
        else:
            reference.assert_sums(matrix[:, 0], grad, weight)
    assert torch.equal(copy.isnan(), weight.isnan())
    assert torch.equal(copy.nan_to_num(), weight.nan_to_num())


def test_grad_sums_of_everything_together(path):
    grads, weights = zip(*(make() for make in PAIRS.values()), strict=True)
    copies = [torch.empty_like(w) for w in weights]
    cache = ops.Cache()
    for _ in range(2):
        (matrix,) = ops.grad_sums(grads, weights, copies, cache).wait()
        for column, grad, weight, copy in zip(matrix.T, grads, weights, copies, strict=True):
            assert torch.equal(copy.nan_to_num(), weight.nan_to_num())
            if grad is not None:
                reference.assert_sums(column, grad, weight)


@pytest.mark.parametrize("name", PAIRS)
def test_step_sums(path, name):
    old, weight = PAIRS[name]()
    old = old.to_dense() if old is not None and old.is_sparse else old
    of_weights, of_steps = ops.step_sums([weight], [old]).wait()
    reference.assert_sums(of_weights[:, 0], weight)
    if old is None:
        assert np.isnan(of_steps).all()
    else:
        reference.assert_sums(of_steps[:, 0], weight.double() - old.double(), old)


def test_a_step_with_old_weights_missing_among_others(path):
    weights = [float32(3), float32(4), float32(0), float32(5)]
    olds = [float32(3), None, float32(0), float32(5)]
    of_weights, of_steps = ops.step_sums(weights, olds).wait()
    assert np.isnan(of_steps[:, 1]).all()
    assert np.isfinite(of_steps[:, [0, 2, 3]]).all()
    assert np.isfinite(of_weights).all()


def test_nothing_is_changed_and_no_graph_is_made(path):
    weight = torch.nn.Parameter(float32(3, 4))
    weight.grad = float32(3, 4)
    before, version = weight.detach().clone(), weight._version
    ops.grad_sums([weight.grad], [weight], [torch.empty_like(weight)]).wait()
    ops.sums([weight]).wait()
    assert torch.equal(weight, before)
    assert weight._version == version
    assert weight.is_leaf


def test_waiting_twice_gives_the_same(path):
    pending = ops.sums([sparse(), float32(3)])
    assert pending.ready()
    first = pending.wait()[0].copy()
    np.testing.assert_array_equal(pending.wait()[0], first)


class Widest(TorchDispatchMode):
    """Remembers the most float64 entries that one operation made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor) and t.dtype == torch.float64]
        self.entries = max([self.entries, *(t.numel() for t in made)])
        return result


def test_a_large_tensor_on_a_device_is_widened_in_chunks(monkeypatch):
    monkeypatch.setattr(torch_device, "CHUNK", 1000)
    weight, other = float32(30, 1000), float32(30, 1000)
    for take in (torch_device.device_grad_sums, torch_device.device_step_sums):
        with Widest() as widest:
            take([weight], [other])
        assert widest.entries == 1000


# --- the small operations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [(), (0,), (2,), (2, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_rows_as_in_numpy(path, kept, dtype):
    x = (float32(3, 4, 5) * 9).to(dtype)
    rows = ops.as_rows(x, kept)
    expected = ops_of(np.zeros(1)).as_rows(x.double().numpy(), kept)
    np.testing.assert_array_equal(rows.double().numpy(), expected)
    for column, row in zip(ops.sums_of_rows(rows).T, expected, strict=True):
        reference.assert_sums(column, row)


def test_as_float64():
    for tensor in (torch.nn.Parameter(float32(2, 3)), float32(2, 3).bfloat16(), sparse()):
        np.testing.assert_array_equal(ops.as_float64(tensor), reference.as_float64(tensor))


def test_the_drawer_of_a_tensor():
    assert ops_of(torch.zeros(1)) is ops
    assert ops_of(torch.nn.Parameter(torch.zeros(1))) is ops


# --- what is refused --------------------------------------------------------------------------------------------------


def distributed():
    tensor_class = pytest.importorskip("torch.distributed.tensor", reason="torch.distributed is not built").DTensor
    from torch.testing._internal.two_tensor import TwoTensor

    assert tensor_class is not TwoTensor
    return TwoTensor(float32(2, 3), float32(2, 3))


REFUSED = {
    "complex": (
        lambda: torch.ones(2, 3, dtype=torch.complex64),
        r"a torch.complex64 tensor of shape \(2, 3\) was given",
    ),
    "meta": (lambda: torch.empty(2, 3, device="meta"), r"a tensor of shape \(2, 3\) on the meta device was given"),
    "wrapper": (distributed, r"a TwoTensor of shape \(2, 3\) was given; it has no plain memory"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("call", ["sums", "rows", "float64"])
def test_refused(path, name, call):
    make, sentence = REFUSED[name]
    calls = {"sums": lambda t: ops.sums([t]), "rows": ops.sums_of_rows, "float64": ops.as_float64}
    with pytest.raises(ArgumentError, match=sentence):
        calls[call](make())


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_tensor_is_named(name):
    make, sentence = REFUSED[name]
    with pytest.raises(ArgumentError, match="^conv1.weight is " + sentence.removesuffix(" was given").split(" was")[0]):
        torch_columns.refuse_unreadable(make(), "conv1.weight")
