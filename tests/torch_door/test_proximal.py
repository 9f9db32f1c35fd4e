"""`nk.proximal`: exact zeros after each step, by the lr of that step."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
import pulled
from normkit.errors import ArgumentError, ModelError
from normkit.torch.proximal_entry import soft_threshold_

pytestmark = [pytest.mark.usefixtures("one_thread")]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def stepped(optimizer, *weights):
    """One step with gradients of zero: SGD alone leaves the weights."""
    for w in weights:
        w.grad = torch.zeros_like(w)
    optimizer.step()


def near(w, expected, close=1e-6):
    np.testing.assert_allclose(w.detach().double().numpy(), expected, rtol=close, atol=close)


@pytest.mark.parametrize(
    "terms", [{"l1": 0.5}, {"group": 0.25}, {"l1": 0.5, "group": 0.25}], ids=["l1", "group", "both"]
)
def test_a_step_is_the_room_s_with_the_lr_of_the_group(terms):
    model = net()
    groups = [{"params": [model[0].weight], "lr": 0.5}, {"params": [model[2].weight]}]
    optimizer = torch.optim.SGD(groups, lr=0.25)
    before = [w.detach().double().numpy().copy() for w in (model[0].weight, model[2].weight)]
    nk.proximal(optimizer, **terms, model=model)
    for factor in (1.0, 0.5):
        for group, lr in zip(optimizer.param_groups, (0.5, 0.25), strict=True):
            group["lr"] = lr * factor
        stepped(optimizer, model[0].weight, model[2].weight)
        for i, lr in enumerate((0.5 * factor, 0.25 * factor)):
            if "l1" in terms:
                before[i] = pulled.soft_threshold(before[i], lr * 0.5)
            if "group" in terms:
                before[i] = pulled.group_threshold(before[i], lr * 0.25)
    near(model[0].weight, before[0])
    near(model[2].weight, before[1])


@pytest.mark.parametrize("on_device", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_tensors_together_are_the_room_bit_for_bit(dtype, on_device):
    torch.manual_seed(0)
    weights = [
        torch.randn(5, 7).to(dtype),
        torch.tensor([0.0, -0.0, 0.1, -0.1, torch.inf, -torch.inf, torch.nan]).to(dtype),
    ]
    weights += [torch.zeros(0, dtype=dtype), torch.randn(3, 4).to(dtype).t()]
    expected = [nk.soft_threshold(w, 0.1) for w in weights]
    soft_threshold_(weights, torch.tensor(0.1, dtype=torch.float64) if on_device else 0.1)
    for w, wanted in zip(weights, expected, strict=True):
        assert torch.equal(w.nan_to_num(), wanted.nan_to_num())
        assert torch.equal(w.isnan(), wanted.isnan())
        assert not torch.signbit(w[w == 0]).any()


def regression():
    """Twenty features of which six count, as in a lasso with an exact answer: the features are orthonormal."""
    random = np.random.default_rng(0)
    features, _ = np.linalg.qr(random.normal(size=(60, 20)))
    true = np.zeros(20)
    true[:6] = [3.0, -2.0, 1.5, -1.0, 2.5, -3.5]
    target = features @ true + 0.01 * random.normal(size=60)
    return torch.tensor(features), torch.tensor(target), pulled.soft_threshold(features.T @ target, 0.1)


def lasso(by):
    features, target, exact = regression()
    torch.manual_seed(0)
    layer = nn.Linear(20, 1, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    if by == "proximal":
        nk.proximal(optimizer, l1=0.1, model=layer, select="weight", per=0)
    pull = nk.penalty(layer, l1=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        loss = 0.5 * (layer(features).squeeze(1) - target).square().sum()
        (loss + pull() if by == "penalty" else loss).backward()
        optimizer.step()
    return layer.weight.detach()[0].numpy(), exact


def test_it_finds_the_zeros_and_the_gradient_of_the_penalty_none():
    found, exact = lasso("proximal")
    assert (found == 0).sum() == 14
    assert (exact == 0).sum() == 14
    np.testing.assert_allclose(found, exact, atol=1e-13)
    by_gradient, _ = lasso("penalty")
    assert (by_gradient == 0).sum() == 0


def orthonormal_lasso(by):
    """Forty weights, 100 rows, l1 0.5, 4000 steps: the exact answer, a soft threshold, has fourteen zeros."""
    torch.manual_seed(0)
    torch.randn(12, 9, dtype=torch.float64), torch.randn(12, 9, dtype=torch.float64)  # drawn before the lasso's
    torch.randn(9, 9, dtype=torch.float64)
    features, _ = torch.linalg.qr(torch.randn(100, 40, dtype=torch.float64))
    true = torch.randn(40, dtype=torch.float64)
    target = features @ true
    layer = nn.Linear(40, 1, bias=False, dtype=torch.float64)
    kind, lr = (torch.optim.Adam, 0.01) if by == "adam" else (torch.optim.SGD, 0.05)
    optimizer = kind(layer.parameters(), lr=lr)
    pull = nk.penalty(layer, l1=0.5)
    if by == "proximal":
        nk.proximal(optimizer, l1=0.5, model=layer)
    for _ in range(4000):
        optimizer.zero_grad()
        loss = 0.5 * (layer(features).squeeze(1) - target).square().sum()
        (loss if by == "proximal" else loss + pull()).backward()
        optimizer.step()
    return layer.weight.detach()[0].numpy(), pulled.soft_threshold(true.numpy(), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["proximal", "sgd", "adam"])
def test_all_fourteen_zeros_are_found_by_the_proximal_step_and_none_by_a_gradient(by):
    found, exact = orthonormal_lasso(by)
    assert (exact == 0).sum() == 14
    if by == "proximal":
        assert np.array_equal(found == 0, exact == 0)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-13)
    else:
        assert (found == 0).sum() == 0


def test_a_parameter_without_gradient_is_left_alone_and_remove_ends_it():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    handle = nk.proximal(optimizer, l1=0.1, model=model)
    before = [p.detach().clone() for p in model.parameters()]
    stepped(optimizer, model[0].weight, model[0].bias)
    assert not torch.equal(model[0].weight, before[0])
    assert all(torch.equal(p, b) for p, b in zip(list(model.parameters())[1:], before[1:], strict=True))
    handle.remove()
    handle.remove()
    after = model[0].weight.detach().clone()
    stepped(optimizer, model[0].weight)
    assert torch.equal(model[0].weight, after)
    assert repr(handle) == "Proximal(l1=0.1: 2 parameters, removed)"


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_step_that_a_scaler_skips_does_not_count(fused):
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, fused=fused)
    nk.proximal(optimizer, l1=0.1, model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = model.weight.detach().clone()
    for bad in (True, False):
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 3)) * (torch.inf if bad else 0.0)).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(model.weight, before) is bad
    near(model.weight, pulled.soft_threshold(before.double().numpy(), 0.05))


def test_a_rate_on_the_device():
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.5), capturable=False, foreach=False)
    nk.proximal(optimizer, l1=0.1, group=0.01, model=model)
    before = model.weight.detach().double().numpy().copy()
    stepped(optimizer, model.weight)
    near(model.weight, pulled.group_threshold(pulled.soft_threshold(before, 0.05), 0.005))


def test_groups_of_a_weight_normed_layer_by_its_lengths():
    torch.manual_seed(0)
    layer = nk.weight_norm(nn.Linear(4, 3))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    before = layer.weight.detach().double().numpy().copy()
    handle = nk.proximal(optimizer, group=0.5, model=layer)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    stepped(optimizer, g, v)
    near(layer.weight, pulled.group_threshold(before, 0.25))
    assert handle.aim.targets[0].tensor is g
    with pytest.raises(ModelError, match="weight is weight-normed, and no entry of it can be made 0 through g and v"):
        nk.proximal(optimizer, l1=0.5, model=layer)
    with pytest.raises(
        ModelError, match=r"weight is weight-normed with lengths g of shape \(3, 1\).*per='in': take per=\(0,\)"
    ):
        nk.proximal(optimizer, group=0.5, per="in", model=layer)


def test_explain_says_by_how_much():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    handle = nk.proximal(optimizer, l1=0.1, group=0.2, model=model)
    assert "0.weight   kernel  layer Linear  + role kernel by default: l1 0.1, by 0.05 in the next step" in str(
        handle.explain()
    )


MISTAKES = [
    (
        lambda m, o: nk.proximal(o),
        ArgumentError,
        "proximal: no coefficient above 0 among l1, group; give one, as in l1=1e-4",
    ),
    (lambda m, o: nk.proximal(o, l1=-1), ArgumentError, "l1=-1: expected a finite number of at least 0"),
    (lambda m, o: nk.proximal(m, l1=0.1), ArgumentError, "proximal\\(Sequential\\): a module; give the optimizer"),
    (lambda m, o: nk.proximal(None, l1=0.1), ArgumentError, "optimizer=None"),
    (lambda m, o: nk.proximal(o, l1=0.1, model=net()), ModelError, "was it made from another model, or from a copy"),
    (lambda m, o: nk.proximal(o, l1=0.1, select="conv"), ArgumentError, "select='conv'"),
    (
        lambda m, o: nk.proximal(o, group=0.1, per=2, model=m),
        ArgumentError,
        "0.weight: per is 2, and an array of shape",
    ),
    (
        lambda m, o: nk.proximal(o, l1=0.1, model=m.requires_grad_(False)),
        ModelError,
        "holds none of the parameters chosen",
    ),
]


@pytest.mark.parametrize(("call", "kind", "sentence"), MISTAKES, ids=[sentence[:30] for *_, sentence in MISTAKES])
def test_a_mistake_is_told_in_a_sentence_and_nothing_is_changed(call, kind, sentence):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with pytest.raises(kind, match=sentence):
        call(model, optimizer)
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
