"""`remove_weight_norm`: the weight, its place, and the optimizer that goes on with it."""

from __future__ import annotations

import warnings

import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import parametrizations, parametrize

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


@pytest.mark.parametrize("how", WRAPS)
@pytest.mark.parametrize("state", ["carry", "reset"])
def test_every_weight_norm_is_folded_and_its_optimizer_goes_on(how, state):
    torch.manual_seed(0)
    layer, x = WRAPS[how](nn.Conv1d(3, 4, 2)), torch.randn(2, 3, 5)
    optimizer = torch.optim.AdamW(layer.named_parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(x) ** 2).sum().backward()
        optimizer.step()
    expected = layer(x)
    v = next(p for name, p in layer.named_parameters() if name.endswith(("original1", "_v")))
    second = optimizer.state[v]["exp_avg_sq"]
    nk.remove_weight_norm(layer, optimizer, state=state)
    assert torch.equal(layer(x), expected)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert type(layer) is nn.Conv1d
    assert not layer._forward_pre_hooks
    assert not layer._load_state_dict_pre_hooks
    group = optimizer.param_groups[0]
    assert {id(p) for p in group["params"]} == {id(layer.weight), id(layer.bias)}
    assert sorted(group["param_names"]) == ["bias", "weight"]
    if state == "carry":
        assert torch.equal(optimizer.state[layer.weight]["exp_avg_sq"], second)
        assert "step" in optimizer.state[layer.weight]
    else:
        assert layer.weight not in optimizer.state
    before = layer.weight.detach().clone()
    optimizer.zero_grad()
    (layer(x) ** 2).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.weight, before)


def test_the_trajectory_goes_on_through_a_fold():
    """SGD on g and v, then on w: as a plain layer that starts from the folded weight."""
    model, x = nk.weight_norm(net()), torch.randn(6, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train(model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) ** 2).sum().backward()
            optimizer.step()

    train(model, optimizer)
    plain = net()
    plain.load_state_dict(nk.convert_state_dict(model.state_dict(), "plain"))
    nk.remove_weight_norm(model, optimizer)
    train(model, optimizer)
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), plain.parameters(), strict=True))


def test_the_old_hook_on_a_recurrent_layer_is_folded():
    torch.manual_seed(0)
    layer = nn.utils.weight_norm(nn.utils.weight_norm(nn.LSTM(3, 4), "weight_ih_l0"), "weight_hh_l0")
    x = torch.randn(2, 1, 3)
    expected = layer(x)[0]
    nk.remove_weight_norm(layer)
    assert torch.equal(layer(x)[0], expected)
    assert list(layer.state_dict()) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    assert all(one is other for one, other in zip(layer._flat_weights, layer.parameters(), strict=True))


def test_what_cannot_be_removed_is_refused():
    with pytest.raises(ArgumentError, match="no weight norm found in Sequential"):
        nk.remove_weight_norm(net())
    with pytest.raises(ArgumentError, match="state='keep': expected 'carry' or 'reset'"):
        nk.remove_weight_norm(nk.weight_norm(net()), state="keep")
    with pytest.raises(ArgumentError, match=r"of type OrderedDict, not torch.nn.Module"):
        nk.remove_weight_norm(net().state_dict())
    model = nk.weight_norm(net())
    parametrize.register_parametrization(model[2], "weight", nn.Identity())
    with pytest.raises(ModelError, match=r"2.weight has Identity upon its weight norm: remove that first"):
        nk.remove_weight_norm(model)
    assert parametrize.is_parametrized(model[0])
    with pytest.raises(ModelError, match=r"SGD holds 4 parameters, and 0.weight is not among them"):
        nk.remove_weight_norm(nk.weight_norm(net()), torch.optim.SGD(net().parameters()))


def test_an_optimizer_left_behind_is_told():
    model = nk.weight_norm(net())
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.warns(
        UserWarning, match=r"Adam was made before remove_weight_norm: what it holds of 0.weight and 1 more"
    ):
        nk.remove_weight_norm(model)
    assert len(optimizer.param_groups) == 1


def test_normalized_again_after_removal():
    model = net()
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nk.remove_weight_norm(nk.weight_norm(model))
    assert type(model[0]) is nn.Linear
