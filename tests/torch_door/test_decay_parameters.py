"""Whom a decay acts on: parameters that come, go or change, weight-normed ones, tied ones, and what is left out."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
from normkit.errors import ModelError

pytestmark = pytest.mark.usefixtures("one_thread")
X = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)).double()


def train(model, optimizer, steps, scheduler=None):
    for _ in range(steps):
        optimizer.zero_grad()
        (model(X) ** 2).sum().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def test_parameters_that_are_added_later_decay():
    model = net()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    handle = nk.decay(optimizer, 0.5, kind="toward", reference="initial", model=model)
    assert repr(handle) == "Decay(0.5, kind='toward': 1 parameter)"
    train(model, optimizer, 1)
    optimizer.add_param_group({"params": model[3].parameters(), "lr": 0.05})
    train(model, optimizer, 1)
    assert repr(handle) == "Decay(0.5, kind='toward': 2 parameters)"
    assert handle.shares == pytest.approx([0.05, 0.025])


def test_a_parameter_that_is_freed_later_decays():
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = nk.decay(optimizer, 0.5, model=model)
    assert [row.why for row in handle.explain().rows][:2] == ["frozen", "role bias"]
    train(model, optimizer, 1)
    assert "1 parameter)" in repr(handle)
    model[0].requires_grad_(True)
    train(model, optimizer, 1)
    assert "2 parameters)" in repr(handle)


def test_weight_normed_later_and_folded_again_it_acts_on_the_length():
    model = net()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    handle = nk.decay(optimizer, 0.5, select="0.*", model=model)
    nk.weight_norm(model[0], optimizer=optimizer)
    g, v = model[0].parametrizations.weight.parameters()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before = g.detach().clone(), v.detach().clone()
    optimizer.step()
    torch.testing.assert_close(g.detach(), before[0] * 0.95, rtol=1e-15, atol=0)
    assert torch.equal(v, before[1])
    chosen = [row.name for row in handle.explain().rows if row.chosen]
    assert chosen == ["0.weight.g"]
    nk.remove_weight_norm(model[0], optimizer)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    weight = model[0].weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), weight * 0.95, rtol=1e-15, atol=0)


@pytest.mark.parametrize("told", ["model", "names"])
@pytest.mark.parametrize("how", [nk.weight_norm, lambda m: torch.nn.utils.parametrizations.weight_norm(m[0])])
def test_the_direction_of_a_weight_normed_weight_decays_only_when_asked(how, told):
    model = net()
    how(model)
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    more = {"model": model} if told == "model" else {}
    handle = nk.decay(optimizer, 0.5, select="0.*", **more)
    assert [row.name for row in handle.explain().rows if row.chosen] == ["0.weight.g"]
    assert "direction of a weight-normed weight" in {row.why for row in handle.explain().rows}
    handle.remove()
    handle = nk.decay(optimizer, 0.5, select="*.v", **more)
    assert all(row.name.endswith(".v") for row in handle.explain().rows if row.chosen)


def test_a_length_of_a_weight_normed_weight_is_that_of_its_g():
    model = nk.weight_norm(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(
        ModelError, match=r"0.weight is weight-normed, and its lengths g of shape \(5, 1\) have no groups"
    ):
        nk.decay(optimizer, 0.5, kind="toward", length=1.0, per="in", model=model)
    nk.decay(optimizer, 0.5, kind="toward", length=1.0, per="out", model=model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    g = model[0].parametrizations.weight.original0
    before = g.detach().clone()
    optimizer.step()
    torch.testing.assert_close(g.detach(), before - 0.05 * (before - 1))


def test_tied_weights_decay_once():
    embedding, head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
    head.weight = embedding.weight
    model = nn.ModuleDict({"embed": embedding, "head": head})
    optimizer = torch.optim.SGD([{"params": [embedding.weight]}], lr=0.1)
    handle = nk.decay(optimizer, 0.5, select="embedding", model=model)
    embedding.weight.grad = torch.zeros(4, 3)
    before = embedding.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(embedding.weight.detach(), before * 0.95)
    assert [row.name for row in handle.explain().rows] == ["embed.weight = head.weight"]


def test_what_is_left_out_is_said():
    model = net()
    model.packed = nn.Parameter(torch.zeros(3, 3, dtype=torch.int8), requires_grad=False)
    optimizer = torch.optim.SGD([*model[0].parameters(), model.packed], lr=0.1)
    handle = nk.decay(optimizer, 0.5, select="all", model=model)
    why = {row.name: row.why for row in handle.explain().rows}
    assert why["packed"] == "int8, not floating-point"
    assert why["3.weight"] == "not in this optimizer"
