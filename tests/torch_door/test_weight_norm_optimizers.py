"""Optimizers that were there before `weight_norm`: g and v take the place of the weight."""

from __future__ import annotations

import copy
import warnings

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ModelError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.(script|trace)` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*is not supported in Python 3.14:DeprecationWarning"),
]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def test_g_and_v_take_the_weights_place():
    model = net()
    optimizer = torch.optim.AdamW(
        [{"params": list(model[2].named_parameters()), "lr": 0.5}, {"params": list(model[0].named_parameters())}]
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    kept = model[2].bias
    nk.weight_norm(model, optimizer=optimizer)
    for group, layer, name in zip(optimizer.param_groups, (model[2], model[0]), ("weight", "weight"), strict=True):
        g, v = layer.parametrizations.weight.parameters()
        assert [id(p) for p in group["params"]] == [id(layer.bias), id(g), id(v)]  # the model's order
        places = [f"parametrizations.{name}.original{i}" for i in (0, 1)]
        assert group["param_names"] == ["bias", *places]
    assert optimizer.state[kept]["step"] == 1
    assert len(optimizer.state) == 2  # those of the weights are gone
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.zero_grad()
    (model(torch.randn(4, 4)) ** 2).sum().backward()
    optimizer.step()
    scheduler.step()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    torch.optim.AdamW(model.named_parameters()).load_state_dict(torch.optim.AdamW(model.parameters()).state_dict())


def test_without_the_models_order_they_stand_where_the_weight_stood():
    model = net()
    mine = [("head", model[2].weight), ("other", nn.Parameter(torch.ones(1))), ("first", model[0].weight)]
    optimizer = torch.optim.SGD(mine, lr=0.1)
    nk.weight_norm(model, select="2.*", optimizer=optimizer)
    held = optimizer.param_groups[0]["params"]
    assert [id(p) for p in held] == [
        *map(id, model[2].parametrizations.weight.parameters()),
        *map(id, (mine[1][1], mine[2][1])),
    ]
    nk.remove_weight_norm(model, optimizer)
    assert [id(p) for p in held] == [id(model[2].weight), *map(id, (mine[1][1], mine[2][1]))]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.01),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        torch.optim.Adafactor,  # its state of a matrix is a row and a column
    ],
)
def test_training_goes_on_from_a_checkpoint(make):
    """Wrapped, then folded, with one optimizer; each time saved, and loaded by one that was made of that model."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4)

    def train(model, optimizer):
        optimizer.zero_grad()
        (model(x)[0] ** 2).sum().backward()
        optimizer.step()

    def goes_on(model, optimizer, fresh):
        other = make(fresh.parameters())
        fresh.load_state_dict(model.state_dict())
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        train(model, optimizer)
        train(fresh, other)
        assert all(torch.equal(one, two) for one, two in zip(model.parameters(), fresh.parameters(), strict=True))

    model = nn.GRU(4, 4)
    optimizer = make(model.parameters())
    train(model, optimizer)
    nk.weight_norm(model, optimizer=optimizer)
    train(model, optimizer)
    goes_on(model, optimizer, nk.weight_norm(nn.GRU(4, 4)))
    nk.remove_weight_norm(model, optimizer)
    goes_on(model, optimizer, nn.GRU(4, 4))


def test_a_frozen_weight_stays_frozen():
    model = net()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    nk.weight_norm(model, select=["all", "*.weight"], optimizer=optimizer)
    assert not any(p.requires_grad for p in model[0].parametrizations.parameters())
    assert all(p.requires_grad for p in model[2].parametrizations.parameters())
    nk.remove_weight_norm(model, optimizer)
    assert not model[0].weight.requires_grad
    assert isinstance(model[0].weight, nn.Parameter)


def test_an_optimizer_left_behind_is_told():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(
        UserWarning, match=r"SGD was made before weight_norm: what it holds of 0.weight and 1 more trains"
    ):
        nk.weight_norm(model)
    assert len(optimizer.param_groups) == 1


def test_nothing_is_said_where_no_optimizer_was_made():
    model = net()
    torch.optim.SGD(net().parameters(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nk.weight_norm(model)


def test_several_optimizers_and_lbfgs():
    model, other, x = net(), net(), torch.randn(20, 4)
    both = [torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.LBFGS(model.parameters(), max_iter=2)]

    def closure():
        both[1].zero_grad()
        loss = ((model(x) - 1) ** 2).sum()
        loss.backward()
        return loss

    both[1].step(closure)
    nk.weight_norm(model, optimizer=both)
    first = closure().item()
    both[1].step(closure)
    assert closure().item() < first
    nk.remove_weight_norm(model, both)
    both[1].step(closure)
    with pytest.raises(ModelError, match="SGD holds 4 parameters"):
        nk.weight_norm(other, optimizer=both)


def test_wrap_train_fold_train():
    """The weight moves on in the group it was in; tied and frozen neighbours are untouched."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4), "f": nn.Linear(4, 4)})
    model["c"].weight = model["b"].weight
    model["f"].requires_grad_(False)
    frozen, pair = model["f"].weight.clone(), model["b"].weight
    optimizer = torch.optim.AdamW(
        [{"params": [model["a"].weight], "lr": 0.01}, {"params": [pair, model["a"].bias], "lr": 0.02}]
    )
    x = torch.randn(8, 4)

    def train():
        for _ in range(20):
            optimizer.zero_grad()
            y = model["f"](model["c"](model["b"](model["a"](x))))
            (y - 1).square().mean().backward()
            optimizer.step()
        return (y - 1).square().mean().item()

    nk.weight_norm(model["a"], optimizer=optimizer)
    first = train()
    v = model["a"].parametrizations.weight.original1
    momentum = optimizer.state[v]["exp_avg"].clone()
    nk.remove_weight_norm(model, optimizer)
    weight = model["a"].weight
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(weight)]
    assert torch.equal(optimizer.state[weight]["exp_avg"], momentum)
    assert optimizer.state[weight]["step"] == 20
    before = weight.detach().clone()
    assert train() < first
    assert not torch.equal(weight, before)
    assert model["c"].weight is model["b"].weight is pair
    assert torch.equal(model["f"].weight, frozen)
