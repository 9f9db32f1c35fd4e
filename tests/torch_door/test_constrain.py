"""`nk.constrain`: weights brought back within a limit after each step, and not touched where they satisfy it."""

from __future__ import annotations

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

import normkit.torch as nk
import pulled
from normkit.errors import ModelError, StateError
from normkit.torch.constrain_handle import Constraint

pytestmark = [pytest.mark.usefixtures("one_thread")]

LIMITS = {
    "max_norm": {"max_norm": 0.7},
    "unit_norm": {"unit_norm": True},
    "min_max_norm": {"min_max_norm": (0.5, 0.8)},
    "hold": {"hold": 2.0},
    "spectral_cap": {"spectral_cap": 0.7},
}
ROOM = {
    "max_norm": lambda w, kept: nk.max_norm(w, 0.7, kept),
    "unit_norm": nk.unit_norm,
    "min_max_norm": lambda w, kept: nk.min_max_norm(w, (0.5, 0.8), kept),
    "hold": lambda w, kept: nk.hold(w, 2.0, kept),
    "spectral_cap": lambda w, kept: nk.spectral_cap(w, 0.7, kept),
}
REFERENCE = {
    "max_norm": lambda w, kept: pulled.max_norm(w, 0.7, kept),
    "unit_norm": pulled.unit_norm,
    "min_max_norm": lambda w, kept: pulled.min_max_norm(w, (0.5, 0.8), kept),
    "hold": lambda w, kept: pulled.hold(w, 2.0, kept),
    "spectral_cap": lambda w, kept: pulled.spectral_cap(w, 0.7, kept),
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def net(dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.ConvTranspose1d(5, 4, 2), nn.Linear(1, 3))
    with torch.no_grad():
        model[0].weight[0] = 0  # a group of zeros
        model[0].weight[1] *= 0.01
    return model.to(dtype)


def sgd(model, lr=0.5):
    return torch.optim.SGD(model.parameters(), lr=lr)


def stepped(optimizer, model, seed=0):
    torch.manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()


KEPT = {"0.weight": (0,), "2.weight": (1,), "3.weight": (0,)}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("limit", LIMITS)
def test_after_a_step_weights_are_the_room_s_and_the_reference_s(limit, dtype):
    model, free = net(dtype), net(dtype)
    optimizer, other = sgd(model), sgd(free)
    nk.constrain(optimizer, **LIMITS[limit], model=model)
    stepped(optimizer, model)
    stepped(other, free)
    eps = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    weights = dict(free.named_parameters())
    for name, p in model.named_parameters():
        if name in KEPT:
            assert torch.equal(p, ROOM[limit](weights[name].detach(), KEPT[name]))
            expected = REFERENCE[limit](weights[name].detach().double().numpy(), KEPT[name])
            np.testing.assert_allclose(p.detach().double(), expected, rtol=eps, atol=eps)
        else:
            assert torch.equal(p, weights[name])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("limit", LIMITS)
def test_a_second_application_changes_no_bit(limit, dtype):
    model = net(dtype)
    optimizer = sgd(model)
    handle = nk.constrain(optimizer, **LIMITS[limit], model=model)
    stepped(optimizer, model)
    handle.apply()
    once = [p.detach().clone() for p in model.parameters()]
    for _ in range(3):
        handle.apply()
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), once, strict=True))


@pytest.mark.parametrize("limit", [{"max_norm": 3.0}, {"min_max_norm": (1e-6, 9.0)}], ids=str)
def test_a_thousand_applications_change_no_bit_of_what_satisfies_it(limit):
    torch.manual_seed(1)
    model = nn.Linear(6, 5)
    handle = nk.constrain(sgd(model), **limit, model=model)
    before, version = model.weight.detach().clone(), model.weight._version
    for _ in range(1000):
        handle.apply()
    assert torch.equal(model.weight, before)
    assert model.weight._version == version  # nothing was written


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_row_is_over_its_limit(dtype):
    torch.manual_seed(0)
    model = nn.Linear(50, 400, bias=False, dtype=dtype)
    optimizer = sgd(model)
    nk.constrain(optimizer, max_norm=0.3, model=model)
    stepped(optimizer, model)
    assert pulled.lengths(model.weight.detach().double().numpy(), (0,)).max() <= 0.3


def test_the_cheap_look_and_the_room_agree_near_the_limit(monkeypatch):
    """Rows whose length is the limit, one step of the last digit below, and one above."""
    row = np.float32(0.6), np.float32(0.8)
    rows = [[a, b] for a in (np.nextafter(row[0], 0), row[0], np.nextafter(row[0], 1)) for b in (row[1],)]
    for limit in (1.0, float(np.hypot(*map(np.float64, row)))):
        found = []
        for look in (True, False):
            layer = nn.Linear(2, 3, bias=False)
            layer.weight.data.copy_(torch.tensor(rows))
            if not look:
                monkeypatch.setattr(Constraint, "_clearly_within", lambda *_: False)
            nk.constrain(sgd(layer), max_norm=limit, model=layer).apply()
            monkeypatch.undo()
            found.append(layer.weight.detach())
        assert torch.equal(*found)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_for_others_to_see(value):
    layer = nn.Linear(3, 2)
    layer.weight.data[1, 1] = value
    before = layer.weight.detach().clone()
    handle = nk.constrain(sgd(layer), max_norm=0.1, model=layer)
    handle.apply()
    assert torch.equal(layer.weight[1].nan_to_num(), before[1].nan_to_num())
    assert pulled.lengths(layer.weight.detach().numpy()[:1], (0,)).max() <= 0.1


def test_spectral_cap_is_certified_and_so_by_svd():
    model = net()
    optimizer = sgd(model)
    handle = nk.constrain(optimizer, spectral_cap=0.5, model=model)
    assert max(handle.certify().values()) > 0.5
    stepped(optimizer, model)
    bounds = handle.certify()
    assert list(bounds) == list(KEPT)
    for name, bound in bounds.items():
        sigma = pulled.sigmas(dict(model.named_parameters())[name].detach().double().numpy(), KEPT[name]).max()
        assert sigma <= 0.5
        assert sigma <= bound <= 0.5
    other = nk.constrain(optimizer, max_norm=1.0, model=model)
    with pytest.raises(StateError, match=r"certify\(\) is for spectral_cap; this handle holds max_norm 1"):
        other.certify()


def initial(model):
    return {
        name: pulled.lengths(dict(model.named_parameters())[name].detach().double().numpy(), KEPT[name])
        for name in KEPT
    }


def dense():
    model = net()
    nn.init.normal_(model[0].weight)
    return model


def test_hold_initial_keeps_the_lengths_of_the_call():
    model = dense()
    before = initial(model)
    optimizer = sgd(model)
    nk.constrain(optimizer, hold="initial", model=model)
    for seed in range(5):
        stepped(optimizer, model, seed)
    for name, lengths in initial(model).items():
        np.testing.assert_allclose(lengths, before[name], rtol=2e-7)


def test_hold_initial_goes_with_the_optimizer_s_state():
    model = dense()
    optimizer = sgd(model)
    handle = nk.constrain(optimizer, hold="initial", model=model)
    before = initial(model)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        model[0].weight.mul_(3)
    again = sgd(model)
    resumed = nk.constrain(again, hold="initial", model=model)
    again.load_state_dict(torch.load(file))
    resumed.apply()
    np.testing.assert_allclose(initial(model)["0.weight"], before["0.weight"], rtol=2e-7)
    other = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.ConvTranspose1d(5, 4, 2), nn.Linear(1, 3))
    stranger = sgd(other)
    nk.constrain(stranger, hold="initial", model=other)
    with pytest.raises(StateError, match=r"lengths of 0.weight have shape \(5, 1\); expected \(7, 1\)"):
        stranger.load_state_dict(optimizer.state_dict())
    handle.remove()
    assert "normkit" not in optimizer.state_dict()


def test_a_group_of_zeros_cannot_be_held_at_its_length():
    model = net()
    with pytest.raises(
        ModelError, match=r"0\.weight has 1 of 5 groups whose length is 0 or not finite, so hold='initial'"
    ):
        nk.constrain(sgd(model), hold="initial", model=model)
