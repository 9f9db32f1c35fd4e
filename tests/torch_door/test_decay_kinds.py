"""`nk.decay`: each kind on each optimizer gives the trajectory of the reference."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import numpy as np
from torch import nn

import normkit.torch as nk
import pulled
from normkit.decay import decayed

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda params, **more: torch.optim.SGD(params, momentum=pulled.MOMENTUM, **more),
    "nesterov": lambda params, **more: torch.optim.SGD(params, momentum=pulled.MOMENTUM, nesterov=True, **more),
    "adam": lambda params, **more: torch.optim.Adam(params, betas=pulled.BETAS, eps=pulled.EPS, **more),
}
ROWS = pulled.lengths(pulled.START, (0,))
KINDS = {  # name: (kind, more for nk.decay, more for the reference)
    "l2": ("l2", {}, {}),
    "decoupled": ("decoupled", {}, {}),
    "independent": ("independent", {}, {}),
    "corrected": ("corrected", {"lr_ref": 0.2}, {"lr_ref": 0.2}),
    "cautious": ("cautious", {}, {}),
    "start": ("toward", {"reference": "initial"}, {}),
    "goal": ("toward", {"reference": {"fc.weight": pulled.GOAL}}, {"reference": pulled.GOAL}),
    "length": ("toward", {"length": 1.0}, {"length": 1.0}),
    "initial length": ("toward", {"length": "initial"}, {"length": pulled.lengths(pulled.START)}),
    "rows": ("toward", {"length": "initial", "per": 0}, {"length": ROWS, "kept": (0,)}),
}


def trained(kind, make, *, dtype=torch.float64, closure=False, tensor_lr=False, **more):
    """The weights from the start on."""
    curve, goal = (torch.tensor(x, dtype=dtype) for x in (pulled.CURVE, pulled.GOAL))
    w = nn.Parameter(torch.tensor(pulled.START, dtype=dtype))
    optimizer = make([("fc.weight", w)], lr=torch.tensor(0.1, dtype=dtype) if tensor_lr else 0.1, foreach=tensor_lr)
    nk.decay(optimizer, pulled.WEIGHT_DECAY, kind=kind, **more)

    def evaluate():
        optimizer.zero_grad()
        loss = (curve * (w - goal) ** 2).sum() / 2
        loss.backward()
        return loss

    path = [w.detach().numpy().copy()]
    for step in range(8):
        if tensor_lr:
            optimizer.param_groups[0]["lr"].fill_(pulled.rate(step))
        else:
            optimizer.param_groups[0]["lr"] = pulled.rate(step)
        if closure:
            optimizer.step(evaluate)
        else:
            evaluate()
            optimizer.step()
        path.append(w.detach().numpy().copy())
    return np.array(path)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_trajectory_is_the_references(name, optimizer, dtype, within):
    kind, ours, theirs = KINDS[name]
    expected = pulled.trajectory(kind, optimizer, 8, factor=pulled.fading, **theirs)
    found = trained(kind, OPTIMIZERS[optimizer], dtype=dtype, schedule=pulled.fading, **ours)
    np.testing.assert_allclose(found, expected, rtol=0, atol=within)
    assert np.abs(expected - pulled.trajectory(None, optimizer, 8)).max() > 1e-3


@pytest.mark.parametrize("how", ["closure", "tensor_lr"])
@pytest.mark.parametrize("name", KINDS)
def test_with_a_closure_or_a_tensor_for_lr_it_is_the_same(name, how):
    kind, ours, theirs = KINDS[name]
    found = trained(kind, OPTIMIZERS["momentum"], schedule=pulled.fading, **{how: True}, **ours)
    expected = pulled.trajectory(kind, "momentum", 8, factor=pulled.fading, **theirs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_with_a_constant_rate_independent_takes_lambda_whatever_the_rate():
    w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=1e-3)
    nk.decay(optimizer, 0.25, kind="independent", select="all")
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert w.item() == 0.75


SHAPES = [(3, 5), (7,), (), (130, 150), (600, 500), (2, 3, 4), (0, 3)]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["decoupled", "cautious", "start", "initial length"])
def test_tensors_of_any_size_are_what_the_room_says(name, dtype, transposed):
    """Small ones are worked on together, large ones in pieces, and what is not in one piece by itself."""
    kind, more, _ = KINDS[name]
    torch.manual_seed(0)
    made = [torch.randn(shape).to(dtype) for shape in SHAPES]
    params = [nn.Parameter(x.mT if transposed and x.ndim > 1 else x) for x in made]
    before = [p.detach().clone() for p in params]
    optimizer = torch.optim.SGD(params, lr=0.25)
    nk.decay(optimizer, 1.0, kind=kind, select="all", **more)
    for param in params[1:]:
        param.grad = torch.randn(param.shape).to(dtype)
    params[0].grad = torch.zeros_like(params[0])
    if kind == "toward":
        optimizer.step()  # away from where it started
    now = [p.detach().clone() for p in params]
    optimizer.step()
    for param, start, old in zip(params, before, now, strict=True):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        update = (old.to(wide) - 0.25 * param.grad.to(wide)).to(dtype).to(wide) - old.to(wide)  # as it arrives
        if kind == "toward" and name != "start":
            more = {"length": nk.norm_except_dim(start.double(), "tensor")}
        elif name == "start":
            more = {"reference": start}
        left = decayed(old.to(wide), 1.0, lr=0.25, kind=kind, update=update, **more)
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(param.detach().to(wide), left + update, rtol=4 * eps, atol=4 * eps)


def test_with_adam_decoupled_has_the_bits_of_adamw():
    torch.manual_seed(0)
    for foreach in (False, True):
        mine, own = ([nn.Parameter(x.clone()) for x in (torch.randn(4, 3), torch.randn(5, 5))] for _ in "ab")
        torch.manual_seed(1)
        with torch.no_grad():
            for a, b in zip(mine, own, strict=True):
                b.copy_(a)
        ours = torch.optim.Adam(mine, lr=0.01, foreach=foreach)
        theirs = torch.optim.AdamW(own, lr=0.01, weight_decay=0.3, foreach=foreach)
        nk.decay(ours, 0.3)
        for _ in range(20):
            for a, b in zip(mine, own, strict=True):
                a.grad = torch.randn(a.shape)
                b.grad = a.grad.clone()
            ours.step()
            theirs.step()
        assert all(torch.equal(a, b) for a, b in zip(mine, own, strict=True))


def test_a_group_of_zeros_stays_where_a_length_is_aimed_at():
    w = nn.Parameter(torch.zeros(4, 3))
    optimizer = torch.optim.SGD([w], lr=0.1)
    nk.decay(optimizer, 1.0, kind="toward", length=2.0)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    assert torch.equal(w, torch.zeros(4, 3))


def test_a_length_beyond_squares():
    w = nn.Parameter(torch.full((4, 3), 1e-30))
    optimizer = torch.optim.SGD([w], lr=0.5)
    nk.decay(optimizer, 1.0, kind="toward", length=0.0)
    w.grad = torch.zeros_like(w)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.full((4, 3), 5e-31))


@pytest.mark.parametrize("name", ["cautious", "initial length"])
def test_the_compiled_loops_and_torchs_operations_say_the_same(name, monkeypatch):
    kind, more, _ = KINDS[name]
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr("normkit.torch.decay_pull.are_plain", lambda tensors: False)
        torch.manual_seed(0)
        params = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
        optimizer = torch.optim.SGD(params, lr=0.25)
        nk.decay(optimizer, 1.0, kind=kind, select="all", **more)
        for _ in range(3):
            for param in params:
                param.grad = torch.randn(param.shape)
            optimizer.step()
        found.append(params)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["cautious", "l2", "start", "initial length"])
def test_weights_may_come_to_lie_otherwise_in_memory(name):
    """Another memory format, other memory, another shape: all without a new parameter."""
    kind, more, _ = KINDS[name]
    found = []
    for moves in (True, False):
        torch.manual_seed(0)
        w = nn.Parameter(torch.randn(4, 3, 2, 2))
        optimizer = torch.optim.SGD([w], lr=0.25)
        nk.decay(optimizer, 1.0, kind=kind, **more)
        for step in range(5):
            w.grad = torch.randn(4, 3, 2, 2)
            optimizer.step()
            if moves:
                form = torch.channels_last if step == 1 else torch.contiguous_format
                w.data = w.data.clone(memory_format=form)
        found.append(w.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)
    if kind == "cautious":
        w.data, w.grad = torch.ones(2, 2), torch.full((2, 2), -1.0)
        optimizer.step()
        assert torch.equal(w, torch.full((2, 2), 1.25))
