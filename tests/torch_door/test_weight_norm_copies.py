"""Copies, pickles and states of weight-normed layers, and what stands around one: compilers, wrappers, precision."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import normkit.torch as nk

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def stored(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": stored,
    "copy of a copy": lambda model: copy.deepcopy(stored(model)),
}
BUILT = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "lstm": (lambda: nn.LSTM(4, 3, 2, bidirectional=True), (5, 2, 4)),
    "model": (net, (2, 4)),
}


def first(result):
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", BUILT)
def test_a_copy_is_a_layer_of_its_own(kind, how):
    build, shape = BUILT[kind]
    layer, x = nk.weight_norm(build()), torch.randn(shape)
    expected = first(layer(x))  # after a forward nothing is left in the layer that could not be copied
    other = COPIES[how](layer)
    assert torch.equal(first(other(x)), expected)
    with torch.no_grad():
        for part in other.parameters():
            part.mul_(2)
    assert torch.equal(first(layer(x)), expected)
    nk.remove_weight_norm(other)
    assert torch.equal(first(layer(x)), expected)
    nk.remove_weight_norm(layer)
    assert torch.equal(first(layer(x)), expected)
    first(other(x)).sum().backward()


def test_a_copy_of_torchs_own_can_be_removed_alone():
    """torch gives the copy the class of the original."""
    layer = parametrizations.weight_norm(nn.Linear(4, 3))
    other = copy.deepcopy(layer)
    nk.remove_weight_norm(other)
    assert layer.weight.shape == other.weight.shape
    assert parametrize.is_parametrized(layer)


def test_layers_that_share_parts_of_a_pickle():
    layer = nk.weight_norm(nn.Linear(3, 3))
    model = COPIES["pickle"](nn.ModuleList([layer, layer]))
    assert model[0] is model[1]
    assert model[0].parametrizations.weight.original0 is next(p for p in model.parameters() if p.shape == (3, 1))


@pytest.mark.parametrize("multi", [None, get_ema_multi_avg_fn(0.5)])
def test_averages_of_weights(multi):
    model = nk.weight_norm(net())
    average = AveragedModel(model, multi_avg_fn=multi)
    average.update_parameters(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    average.update_parameters(model)
    g = average.module[0].parametrizations.weight.original0
    torch.testing.assert_close(g, model[0].parametrizations.weight.original0 - 0.5)
    assert average(torch.ones(1, 4)).shape == (1, 3)


def test_another_parametrization_of_the_same_layer_goes_along():
    torch.manual_seed(0)
    layer = parametrizations.spectral_norm(nn.LSTM(3, 4), "weight_hh_l0").eval()
    nk.weight_norm(layer, select="weight_ih*")
    x = torch.randn(2, 1, 3)
    expected = layer(x)[0]
    other = stored(copy.deepcopy(layer))
    assert torch.equal(other(x)[0], expected)
    nk.remove_weight_norm(layer)
    assert list(layer.parametrizations) == ["weight_hh_l0"]
    assert torch.equal(layer(x)[0], expected)
    assert torch.equal(other(x)[0], expected)
