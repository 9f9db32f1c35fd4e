"""Whom `nk.constrain` holds, at which steps, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
import pulled
from normkit.errors import ArgumentError, ModelError, StateError

pytestmark = [pytest.mark.usefixtures("one_thread")]

LIMITS = {
    "max_norm": ({"max_norm": 0.7}, lambda w: pulled.max_norm(w, 0.7, (0,))),
    "unit_norm": ({"unit_norm": True}, lambda w: pulled.unit_norm(w, (0,))),
    "min_max_norm": ({"min_max_norm": (0.5, 0.8)}, lambda w: pulled.min_max_norm(w, (0.5, 0.8), (0,))),
    "hold": ({"hold": 2.0}, lambda w: pulled.hold(w, 2.0, (0,))),
}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.ConvTranspose1d(5, 4, 2), nn.Linear(1, 3))


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.5)


def stepped(optimizer, model, seed=0):
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()


def longest(model):
    kept = {"0.weight": (0,), "2.weight": (1,), "3.weight": (0,)}
    named = dict(model.named_parameters())
    return {name: pulled.lengths(named[name].detach().double().numpy(), axes).max() for name, axes in kept.items()}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_weight_normed_layer_is_held_by_its_lengths(limit):
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    plain = layer.weight.detach().double().numpy().copy()
    layer = nk.weight_norm(layer)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    with torch.no_grad():
        g.neg_()
    kept = v.detach().clone()
    options, expected = LIMITS[limit]
    nk.constrain(sgd(layer), **options, model=layer).apply()
    np.testing.assert_allclose(layer.weight.detach(), expected(-plain), rtol=1e-6)
    assert torch.equal(v, kept)


def test_limits_that_are_not_of_its_lengths_are_refused():
    layer = nk.weight_norm(nn.Linear(4, 3))
    optimizer = sgd(layer)
    with pytest.raises(ModelError, match=r"weight is weight-normed with lengths g of shape \(3, 1\).* take per=\(0,\)"):
        nk.constrain(optimizer, max_norm=1.0, per="tensor", model=layer)
    with pytest.raises(ModelError, match="weight is weight-normed: spectral_cap acts on the whole matrix"):
        nk.constrain(optimizer, spectral_cap=1.0, model=layer)
    other = nk.weight_norm(nn.Linear(4, 3), p=1)
    with pytest.raises(ModelError, match="weight has a g that is no length"):
        nk.constrain(sgd(other), max_norm=1.0, model=other)
    whole = nk.weight_norm(nn.Linear(4, 3), per="tensor")
    nk.constrain(sgd(whole), hold=2.0, per="tensor", model=whole).apply()
    assert whole.weight.norm().item() == pytest.approx(2.0)


def test_several_limits_stack_and_each_can_be_removed():
    model = net()
    optimizer = sgd(model)
    first = nk.constrain(optimizer, max_norm=0.5, model=model)
    second = nk.constrain(optimizer, max_norm=0.1, select="3.*", model=model)
    stepped(optimizer, model)
    top = longest(model)
    assert top["3.weight"] <= 0.1
    assert 0.4 < top["0.weight"] <= 0.5
    assert repr(first) == "Constraint(max_norm 0.5: 3 parameters)"
    first.remove()
    second.remove()
    stepped(optimizer, model, 1)
    assert max(longest(model).values()) > 0.5


def test_nothing_happens_before_the_first_step():
    model = net()
    before = [p.detach().clone() for p in model.parameters()]
    nk.constrain(sgd(model), max_norm=0.01, model=model)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_step_that_a_scaler_skips_does_not_count(fused):
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=fused)
    nk.constrain(optimizer, max_norm=0.01, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = model.weight.detach().clone()
    for bad in (True, False):
        optimizer.zero_grad()
        scaler.scale((model(torch.ones(1, 3)) * (torch.inf if bad else 0.0)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(model.weight, before) is bad


def test_an_optimizer_alone_knows_shapes_and_the_first_axis():
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    nk.constrain(optimizer, max_norm=0.1).apply()
    assert pulled.lengths(layer.weight.detach().numpy(), (0,)).max() <= 0.1
    assert layer.bias.abs().max() > 0


def test_a_parameter_that_comes_later_is_held_too():
    model = net()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.5)
    handle = nk.constrain(optimizer, max_norm=0.1, model=model)
    assert "not in this optimizer" in str(handle.explain())
    optimizer.add_param_group({"params": list(model[2].parameters())})
    stepped(optimizer, model)
    assert longest(model)["2.weight"] <= 0.1


LATER = {
    "constrain": (nk.constrain, {"max_norm": 0.1}, lambda w: pulled.lengths(w.numpy(), (0,)).max() <= 0.1),
    "hold": (nk.constrain, {"hold": 0.1}, lambda w: np.allclose(pulled.lengths(w.numpy(), (0,)), 0.1)),
    "proximal": (nk.proximal, {"l1": 20.0}, lambda w: not w.any()),
}


@pytest.mark.parametrize("verb", LATER)
def test_a_lazy_layer_is_held_once_it_has_seen_a_batch(verb):
    model = nn.Sequential(nn.Linear(4, 5), nn.LazyLinear(3))
    optimizer = sgd(model)
    call, options, holds = LATER[verb]
    handle = call(optimizer, **options, model=model)
    model(torch.ones(1, 4))
    stepped(optimizer, model)
    assert all(holds(layer.weight.detach()) for layer in model)
    assert "2 parameters" in repr(handle)


def test_weights_on_meta_are_held_at_the_lengths_that_they_get():
    with torch.device("meta"):
        model = nn.Linear(4, 3)
    optimizer = sgd(model)
    nk.constrain(optimizer, hold="initial", model=model)
    model.to_empty(device="cpu")
    nn.init.constant_(model.weight, 0.5)
    optimizer.param_groups[0]["params"] = list(model.parameters())
    stepped(optimizer, model)
    np.testing.assert_allclose(pulled.lengths(model.weight.detach().numpy(), (0,)), 1.0, rtol=1e-6)


def test_a_limit_may_be_a_number_of_torch():
    model = net()
    handle = nk.constrain(sgd(model), max_norm=torch.tensor(0.5), model=model)
    handle.apply()
    assert repr(handle) == "Constraint(max_norm 0.5: 3 parameters)"
    assert max(longest(model).values()) <= 0.5


def test_lengths_in_a_state_dict_that_are_none_are_refused():
    model = net()
    optimizer = sgd(model)
    nk.constrain(optimizer, hold="initial", model=model)
    state = optimizer.state_dict()
    state["normkit"]["constrain.0"]["0.weight"] = [1.0, 2.0]
    with pytest.raises(StateError, match=r"the state dict's lengths of 0.weight are list; expected a tensor"):
        optimizer.load_state_dict(state)


MISTAKES = [
    (lambda m, o: nk.constrain(o, model=m), "constrain takes one of max_norm, unit_norm, min_max_norm, hold"),
    (
        lambda m, o: nk.constrain(o, max_norm=1, hold=2, model=m),
        "and was given max_norm=1, hold=2; call it again for another one",
    ),
    (lambda m, o: nk.constrain(o, max_norm=0, model=m), "max_norm=0: expected a length, a finite number above 0"),
    (lambda m, o: nk.constrain(o, max_norm=True, model=m), "max_norm=True: expected a length"),
    (lambda m, o: nk.constrain(o, max_norm="3", model=m), "max_norm='3': expected a length"),
    (
        lambda m, o: nk.constrain(o, unit_norm=2.0, model=m),
        "unit_norm=2.0: expected True; for another length take hold=",
    ),
    (lambda m, o: nk.constrain(o, min_max_norm=(2, 1), model=m), r"min_max_norm=\(2, 1\): expected two lengths"),
    (lambda m, o: nk.constrain(o, hold="first", model=m), "hold='first': expected a length.* or 'initial'"),
    (lambda m, o: nk.constrain(o, max_norm=torch.ones(3), model=m), r"<Tensor of shape \(3,\)>: expected a length"),
    (lambda m, o: nk.constrain(o, spectral_cap=-1, model=m), "spectral_cap=-1: expected a length"),
    (
        lambda m, o: nk.constrain(m, max_norm=3.0),
        r"constrain\(Sequential\): a module; give the optimizer, as constrain\(",
    ),
    (lambda m, o: nk.constrain(torch.optim.SGD, max_norm=3.0), "SGD is a class; give an instance"),
    (lambda m, o: nk.constrain(o, max_norm=3.0, select="conv*"), r"select='conv\*'"),
    (lambda m, o: nk.constrain(o, max_norm=3.0, per=5, model=m), "0.weight: per is 5, and an array of shape"),
    (lambda m, o: nk.constrain(o, max_norm=3.0, per="rows", model=m), "0.weight: per is 'rows'; it must be"),
]


@pytest.mark.parametrize(("call", "sentence"), MISTAKES, ids=[sentence[:30] for _, sentence in MISTAKES])
def test_a_mistake_is_told_in_a_sentence_and_nothing_is_changed(call, sentence):
    model = net()
    optimizer = sgd(model)
    with pytest.raises(ArgumentError, match=sentence):
        call(model, optimizer)
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
