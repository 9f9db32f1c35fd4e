"""What `weight_norm` refuses, and that everything is as before then."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.nn.utils import parametrizations, prune

import normkit.torch as nk
from normkit.errors import ArgumentError, ModelError, StateError

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


def tied():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def tied_by_memory():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = nn.Parameter(model[0].weight.data)
    return model


def head_and_embedding():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    return model


def buffered():
    layer = nn.Linear(3, 3)
    layer.register_buffer("mask", torch.ones(3, 3))
    return layer


def with_entry(value, dtype=torch.float32, size=3):
    layer = nn.Linear(size, 3).to(dtype)
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


def stranger(**options):
    return {"optimizer": torch.optim.SGD(net().parameters(), lr=0.1), **options}


REFUSED = {
    "no module": (lambda: torch.ones(2), {}, ArgumentError, "the first argument is of type Tensor"),
    "twice": (lambda: nk.weight_norm(net()), {}, ArgumentError, "0.weight is already normalized"),
    "g of it": (lambda: nk.weight_norm(net()), {"select": "*.g"}, ArgumentError, "0.weight is already normalized"),
    "torch's": (lambda: parametrizations.weight_norm(nn.Linear(3, 2)), {}, ArgumentError, "already normalized"),
    "old": (lambda: nn.utils.weight_norm(nn.Linear(3, 2)), {}, ArgumentError, "weight is already normalized"),
    "spectral": (lambda: parametrizations.spectral_norm(nn.Linear(3, 2)), {}, ModelError, "by another parametrization"),
    "pruned": (lambda: prune.l1_unstructured(nn.Linear(3, 2), "weight", 1), {}, ModelError, "remove that first"),
    "tied": (tied, {}, ModelError, r"0.weight is tied \(0.weight, 1.weight are one tensor\)"),
    "tied memory": (tied_by_memory, {}, ModelError, "0.weight is tied"),
    "head": (head_and_embedding, {"select": "embedding"}, ModelError, "0.weight is tied"),
    "no kernel": (lambda: nn.BatchNorm1d(3), {}, ArgumentError, "select=None finds no kernel among 5"),
    "no match": (net, {"select": "conv*"}, ArgumentError, "matches none of"),
    "frozen": (lambda: net().requires_grad_(False), {"select": "0.*"}, ArgumentError, "frozen"),
    "buffer": (buffered, {"select": ["all", "mask"]}, ModelError, "mask is a buffer"),
    "axis": (net, {"per": 2}, ArgumentError, "has no axis 2"),
    "word": (net, {"per": "row"}, ArgumentError, "per is 'row'"),
    "unsaid": (lambda: nn.ParameterList([torch.ones(2, 2)]), {}, ArgumentError, "give the number"),
    "p": (net, {"p": 0.5}, ArgumentError, "p=0.5: expected a number of at least 1"),
    "complex": (lambda: nn.Linear(3, 3, dtype=torch.complex64), {}, ModelError, "weight is complex64"),
    "lazy": (lambda: nn.LazyLinear(3), {}, StateError, "run one batch"),
    "nan": (lambda: with_entry(float("nan")), {}, ModelError, "not finite"),
    "too long": (lambda: with_entry(6e4, torch.float16), {}, ModelError, "longer than float16 holds"),
    "script": (lambda: torch.jit.script(nn.Linear(3, 3)), {}, ModelError, "scripted module"),
    "stranger": (net, stranger, ModelError, "0.weight is not among them"),
    "by place": (net, lambda: {"select": stranger()["optimizer"]}, ArgumentError, r"as weight_norm\(model, optimizer"),
    "no optimizer": (net, {"optimizer": "adam"}, ArgumentError, "optimizer='adam'"),
    "none of them": (net, {"optimizer": []}, ArgumentError, r"optimizer=\[\] is empty"),
    "a class": (lambda: nn.Linear, {}, ArgumentError, r"weight_norm\(Linear\): a class; give an instance"),
    "parameters": (
        net,
        {"optimizer": [torch.ones(1)]},
        ArgumentError,
        "among them Tensor: expected a torch.optim optimizer",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_normalized_is_refused_and_left_as_it_was(case):
    build, options, kind, sentence = REFUSED[case]
    model = build()
    options = options() if callable(options) else options
    before = list(model.named_parameters()) if isinstance(model, nn.Module) else []
    classes = [type(each) for each in model.modules()] if isinstance(model, nn.Module) else []
    with pytest.raises(kind, match=sentence):
        nk.weight_norm(model, **options)
    if isinstance(model, nn.Module):
        after = list(model.named_parameters())
        assert [name for name, _ in after] == [name for name, _ in before]
        assert all(one is other for (_, one), (_, other) in zip(after, before, strict=True))
        assert [type(each) for each in model.modules()] == classes


def test_all_or_nothing():
    model = nn.Sequential(nn.Linear(3, 3), parametrizations.spectral_norm(nn.Linear(3, 3)))
    optimizer = torch.optim.AdamW(model.parameters())
    held = list(optimizer.param_groups[0]["params"])
    with pytest.raises(ModelError, match=r"1.weight is computed by another"):
        nk.weight_norm(model, optimizer=optimizer)
    assert type(model[0]) is nn.Linear
    assert all(one is other for one, other in zip(optimizer.param_groups[0]["params"], held, strict=True))


def test_a_g_of_another_shape_is_an_error():
    layer = nk.weight_norm(nn.Linear(4, 3))
    layer.parametrizations.weight.original0 = nn.Parameter(torch.ones(1, 1))
    with pytest.raises(ArgumentError, match=r"g has shape \(1, 1\) beside v of shape \(3, 4\); expected \(3, 1\)"):
        layer(torch.ones(1, 4))
    layer = nk.weight_norm(nn.ConvTranspose1d(4, 6, 2, groups=2))
    layer.parametrizations.weight.original0 = nn.Parameter(torch.ones(1, 3, 1))
    with pytest.raises(ArgumentError, match=r"expected \(2, 3, 1\)"):
        layer(torch.ones(1, 4, 1))


def test_a_module_used_twice_is_no_tie():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    expected = model(torch.ones(1, 3))
    nk.weight_norm(model)
    assert torch.equal(model(torch.ones(1, 3)), expected)
    nk.remove_weight_norm(model)
    assert model[0] is model[2]
    assert torch.equal(model(torch.ones(1, 3)), expected)
