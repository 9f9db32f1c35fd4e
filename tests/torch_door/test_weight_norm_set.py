"""`set_weight` and assignment, and the memory that the layer takes."""

from __future__ import annotations

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

import normkit.torch as nk
from normkit.errors import ArgumentError, ModelError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


WRAPS = {"ours": nk.weight_norm, "torch's": parametrizations.weight_norm, "torch's old": nn.utils.weight_norm}


@pytest.mark.parametrize("wrap", [lambda layer: layer, *WRAPS.values()])
def test_a_weight_is_set_in_its_parts(wrap):
    layer = wrap(nn.Linear(3, 2))
    parts = list(layer.parameters())
    value = np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    assert nk.set_weight(layer, value) is layer
    torch.testing.assert_close(layer.weight.detach(), torch.tensor(value, dtype=torch.float32))
    assert all(one is other for one, other in zip(layer.parameters(), parts, strict=True))
    nk.set_weight(layer, functools.partial(nn.init.constant_, val=2.0))
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 3), 2.0))
    nk.set_weight(layer, lambda w: w.numpy() + 1)
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 3), 3.0))
    torch.testing.assert_close(layer(torch.ones(1, 3)) - layer.bias, torch.full((1, 2), 9.0))
    nk.set_weight(layer, lambda w: w + 1)
    torch.testing.assert_close(layer.weight.detach(), torch.full((2, 3), 4.0))


def test_the_same_numbers_as_torchs_initialization():
    layer, plain = nk.weight_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(3, 4, 3)
    torch.manual_seed(5)
    nk.set_weight(layer, nn.init.kaiming_normal_)
    torch.manual_seed(5)
    nn.init.kaiming_normal_(plain.weight)
    assert torch.equal(layer.weight, plain.weight)


@pytest.mark.parametrize("value", [torch.full((2, 3), 2.0), nn.Parameter(torch.full((2, 3), 2.0))])
def test_assignment_takes_effect_without_sharing_memory(value):
    layer = nk.weight_norm(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer.weight = value
    assert torch.equal(layer.weight, value)
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(value, torch.full((2, 3), 2.0))
    assert not torch.equal(layer.weight, value)
    with pytest.raises(ArgumentError, match=r"weight has shape \(2, 3\), and what it is set to \(3, 2\)"):
        layer.weight = torch.ones(3, 2)


def test_what_cannot_be_set_is_refused():
    layer = nk.weight_norm(nn.Linear(3, 2))
    before = layer.weight.detach().clone()
    with pytest.raises(ArgumentError, match=r"weight has shape \(2, 3\), and what it is set to \(3,\)"):
        nk.set_weight(layer, torch.ones(3))
    with pytest.raises(ArgumentError, match="Linear has no parameter 'kernel': it has bias, weight"):
        nk.set_weight(layer, before, name="kernel")
    with pytest.raises(ArgumentError, match="give the layer that owns it"):
        nk.set_weight(nn.Sequential(layer), before)
    with pytest.raises(ModelError, match="that is no weight norm"):
        nk.set_weight(parametrizations.spectral_norm(nn.Linear(3, 2)), before)
    with pytest.raises(ArgumentError, match="weight is set to 'zeros': expected an array"):
        nk.set_weight(layer, "zeros")
    with pytest.raises(ArgumentError, match="weight is set to None: expected an array"):
        layer.weight = None
    with pytest.raises(ArgumentError, match="its imaginary part would go"):
        layer.weight = before * 1j
    assert torch.equal(layer.weight, before)


class Live(TorchDispatchMode):
    """Counts, after each operation, the bytes of the tensors made since, apart from `known`, that still live."""

    def __init__(self, known):
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.made, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.known:
                self.made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.made = {key: each for key, each in self.made.items() if not each[0].expired()}
        self.most = max(self.most, sum(nbytes for _, nbytes in self.made.values()))
        return result


def peak(layer):
    """The most bytes alive at once in `weight` and its backward pass, beyond those before."""
    towards = torch.ones_like(layer.weight)
    with Live([towards, *layer.parameters()]) as live:
        layer.weight.backward(towards)
    return live.most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("shape", [(512, 256), (64, 64, 32)])
def test_no_more_memory_than_torchs(dtype, dim, shape):
    ours, torchs = nn.Module(), nn.Module()
    ours.weight, torchs.weight = (nn.Parameter(torch.randn(shape).to(dtype)) for _ in range(2))
    nk.weight_norm(ours, select="all", per="tensor" if dim is None else dim)
    parametrizations.weight_norm(torchs, dim=dim)
    assert 2 * ours.weight.nbytes <= peak(ours) <= peak(torchs) + 1024
