"""Derivatives of weight-normed layers, taken through the layer itself: first, second, forward, batched, at zero."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import normal
import normkit.torch as nk
from normkit.torch import fused

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning"),
]

LAYERS = {
    "linear": (lambda: nn.Linear(3, 2), (2, 3)),
    "conv1": (lambda: nn.Conv1d(2, 2, 2), (1, 2, 3)),
    "conv2": (lambda: nn.Conv2d(1, 2, 2), (1, 1, 3, 2)),
    "conv3": (lambda: nn.Conv3d(1, 2, (2, 1, 1)), (1, 1, 2, 1, 1)),
    "grouped": (lambda: nn.Conv1d(4, 2, 2, groups=2), (1, 4, 2)),
    "depthwise": (lambda: nn.Conv1d(2, 2, 2, groups=2), (1, 2, 2)),
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 2), (1, 2, 2)),
    "transposed2": (lambda: nn.ConvTranspose2d(2, 2, (2, 1)), (1, 2, 1, 1)),
    "transposed3": (lambda: nn.ConvTranspose3d(2, 2, (2, 1, 1)), (1, 2, 1, 1, 1)),
    "grouped transposed": (lambda: nn.ConvTranspose1d(4, 4, 2, groups=2), (1, 4, 1)),
    "bilinear": (lambda: nn.Bilinear(2, 2, 2), (2, 2)),
    "embedding": (lambda: nn.Embedding(3, 2), None),
    "gru": (lambda: nn.GRU(1, 2), (1, 1, 1)),
    "lstm": (lambda: nn.LSTM(1, 2, proj_size=1), (1, 1, 1)),
    "cell": (lambda: nn.GRUCell(1, 2), (1, 1)),
    "attention": (lambda: nn.MultiheadAttention(2, 1), (2, 1, 2)),
}


def made(kind, per="out", p=2):
    build, shape = LAYERS[kind]
    torch.manual_seed(3)
    layer = build().double()
    nk.weight_norm(layer, per=per, p=p, select="embedding" if kind == "embedding" else None)
    with torch.no_grad():
        for name, part in layer.named_parameters():
            if name.endswith("original0"):
                part.mul_(1 + torch.rand_like(part))  # g is not |v|
    x = torch.tensor([0, 2]) if shape is None else torch.randn(shape, dtype=torch.float64)
    return layer, x


def through(layer, x, kind):
    """The layer's output as a function of its parts."""
    names = [name for name, _ in layer.named_parameters() if "parametrizations" in name]
    inputs = (x, x) if kind == "bilinear" else (x, x, x) if kind == "attention" else (x,)

    def function(*parts):
        result = torch.func.functional_call(layer, dict(zip(names, parts, strict=True)), inputs)
        return result[0] if isinstance(result, tuple) else result

    parts = [part.detach().clone().requires_grad_() for name, part in layer.named_parameters() if name in names]
    return function, parts


@pytest.mark.parametrize("kind", LAYERS)
def test_first_second_and_forward_derivatives_per_output(kind):
    layer, x = made(kind)
    function, parts = through(layer, x, kind)
    forward = kind not in ("gru", "lstm")  # torch has no forward derivatives of these
    assert gradcheck(function, parts, check_forward_ad=forward, fast_mode=True)
    assert gradgradcheck(function, parts, fast_mode=True)


@pytest.mark.parametrize(("per", "p"), [("tensor", 2), (0, 2), (1, 2), (-1, 2), ((0, 2), 2), ("tensor", 1.5), (0, 3)])
def test_derivatives_for_every_group(per, p):
    layer, x = made("conv1", per, p)
    function, parts = through(layer, x, "conv1")
    assert gradcheck(function, parts, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(function, parts, fast_mode=True)


def test_the_third_derivative_holds():
    layer, x = made("linear")
    function, parts = through(layer, x, "linear")

    def slope(*at):
        return torch.autograd.grad((function(*at) ** 2).sum(), at, create_graph=True)

    assert gradgradcheck(slope, parts, fast_mode=True)


def test_the_gradient_with_and_without_a_graph_is_the_same():
    layer, x = made("grouped")
    loss = (layer(x) ** 2).sum()
    plain = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
    graphed = torch.autograd.grad(loss, list(layer.parameters()), create_graph=True)
    for one, other in zip(plain, graphed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("shape", "kept"), [((4, 3), (0,)), ((4, 3), (1,)), ((4, 3, 2), (1,)), ((4, 3), ())])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_are_the_closed_form(shape, kept, dtype):
    rng = np.random.default_rng(1)
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.tensor(rng.normal(size=shape), dtype=dtype))
    nk.weight_norm(layer, select="all", per=kept or "tensor")
    g, v = (part.detach().double().numpy() for part in layer.parameters())
    towards = torch.tensor(rng.normal(size=shape), dtype=dtype)
    w = layer.weight
    w.backward(towards)
    close = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    np.testing.assert_allclose(w.detach().double(), normal.weight(v, g, kept), rtol=close, atol=close)
    grad_v, grad_g = normal.gradients(towards.double().numpy(), v, g, kept)
    at_g, at_v = (part.grad.double().numpy() for part in layer.parameters())
    np.testing.assert_allclose(at_v, grad_v, rtol=close, atol=close)
    np.testing.assert_allclose(at_g, grad_g, rtol=close, atol=close)


@pytest.mark.parametrize("per", [0, 1, "tensor"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_zero_group_has_the_closed_form_first_and_second(per, dtype):
    """w = g v: dw/dv = g, dw/dg = v = 0, and the one second derivative that is not zero is d2w/dg dv = 1."""
    layer = nn.Module()
    layer.weight = nn.Parameter(torch.zeros(3, 2, dtype=dtype))
    nk.weight_norm(layer, select="all", per=per)
    g, v = layer.parameters()
    with torch.no_grad():
        g.fill_(3.0)
    towards = torch.tensor([[1.0, -2.0], [0.5, 4.0], [1.5, 1.0]], dtype=dtype)
    assert torch.equal(layer.weight, torch.zeros(3, 2, dtype=dtype))
    layer.weight.backward(towards)
    assert torch.equal(v.grad, 3 * towards)
    assert torch.equal(g.grad, torch.zeros_like(g))
    loss = (layer.weight * towards).sum()
    grad_g, grad_v = torch.autograd.grad(loss, (g, v), create_graph=True)
    assert torch.equal(grad_v, 3 * towards)
    back_g, back_v = torch.autograd.grad((grad_v * towards).sum(), (g, v), retain_graph=True, materialize_grads=True)
    squares = (towards**2).sum([axis for axis in (0, 1) if g.shape[axis] == 1], keepdim=True)
    torch.testing.assert_close(back_g, squares)
    assert torch.equal(back_v, torch.zeros_like(v))
    (mixed,) = torch.autograd.grad(grad_g.sum(), v)
    assert torch.equal(mixed, towards)


def test_a_zero_row_leaves_the_others_as_they_are():
    layer = nn.Linear(300, 4)
    with torch.no_grad():
        layer.weight[1] = 0
    before = layer.weight.detach().clone()
    nk.weight_norm(layer)
    assert torch.equal(layer.weight, before)
    layer.weight.sum().backward()
    assert all(bool(part.grad.isfinite().all()) for part in layer.parameters() if part.grad is not None)


@pytest.mark.parametrize("size", [1e-23, 1e-30, 1e25])
@pytest.mark.parametrize("per", ["out", "tensor", 1])
def test_no_length_is_lost_below_or_above(size, per):
    torch.manual_seed(0)
    layer = nn.Linear(5, 4, bias=False)
    with torch.no_grad():
        layer.weight.mul_(size)
    before = layer.weight.detach().clone()
    nk.weight_norm(layer, per=per)
    assert torch.equal(layer.weight, before)
    g, v = layer.parameters()
    kept = {"out": (0,), "tensor": (), 1: (1,)}[per]
    np.testing.assert_allclose(g.detach().double(), normal.lengths(before.double().numpy(), kept), rtol=1e-6)
    with torch.no_grad():
        g.copy_(torch.ones_like(g))
    w = layer.weight
    np.testing.assert_allclose(w.detach(), normal.weight(before.numpy(), np.ones(g.shape), kept), rtol=1e-5)
    w.backward(torch.eye(4, 5))
    grad_v, grad_g = normal.gradients(np.eye(4, 5), before.double().numpy(), np.ones(g.shape), kept)
    np.testing.assert_allclose(g.grad, grad_g, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(v.grad * size, grad_v * size, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [0.0, 1e-23, 1.0, 1e25])
def test_the_way_for_devices_gives_the_same(dtype, size):
    """It never looks at the numbers; here it works on the CPU."""
    torch.manual_seed(0)
    v = (size * torch.randn(4, 5)).to(dtype)
    v[1] = 0
    w, length, _, _ = fused._on_device(torch.ones(4, 1, dtype=dtype), v, (0,))
    close = 1e-2 if dtype is torch.bfloat16 else 1e-6
    np.testing.assert_allclose(w.double(), normal.weight(v.double().numpy(), np.ones((4, 1)), (0,)), rtol=close)
    np.testing.assert_allclose(length.double(), normal.lengths(v.double().numpy(), (0,)), rtol=1e-6)


@pytest.mark.parametrize("per", ["out", "tensor"])
def test_lengths_of_long_groups_are_right(per):
    """torch.linalg.vector_norm is off by 3e-4 here, torch's own kernel by 1e-5."""
    torch.manual_seed(0)
    layer = nn.Linear(2**21, 1, bias=False)
    nk.weight_norm(layer, per=per)
    g, v = layer.parameters()
    assert g.item() == pytest.approx(v.detach().double().norm().item(), rel=1e-6)
    torch.testing.assert_close(layer.weight, v, rtol=0, atol=0)


def test_transforms_and_batched_gradients():
    layer, x = made("linear")
    function, parts = through(layer, x, "linear")
    g, v = parts

    def loss(g, v):
        return (function(g, v) ** 2).sum()

    expected = torch.autograd.grad(loss(g, v), (g, v))
    for one, other in zip(torch.func.grad(loss, (0, 1))(g, v), expected, strict=True):
        torch.testing.assert_close(one, other)
    many = torch.func.vmap(loss)(torch.stack([g, 2 * g]), torch.stack([v, v]))
    torch.testing.assert_close(many, torch.stack([loss(g, v), loss(2 * g, v)]))
    slope = torch.func.jvp(loss, (g, v), (torch.ones_like(g), torch.ones_like(v)))[1]
    torch.testing.assert_close(slope, expected[0].sum() + expected[1].sum())
    slow = torch.autograd.functional.jacobian(function, (g, v))
    fast = torch.autograd.functional.jacobian(function, (g, v), vectorize=True)
    for one, other in zip(slow, fast, strict=True):
        torch.testing.assert_close(one, other)
    hessian = torch.func.hessian(loss, 1)(g, v)
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(lambda v: loss(g, v), v))


def test_a_frozen_part_gets_no_gradient():
    layer, x = made("linear")
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    v.requires_grad_(False)
    layer(x).sum().backward()
    assert v.grad is None
    assert g.grad is not None
    (again,) = torch.autograd.grad(layer(x).sum(), g, create_graph=True)
    torch.testing.assert_close(again, g.grad)


def test_memory_of_any_order_gives_the_same():
    layer, _ = made("conv2", 1)
    other = copy.deepcopy(layer).to(memory_format=torch.channels_last)
    x = torch.randn(2, 1, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(layer(x), other(x), rtol=1e-14, atol=1e-14)
    for each in (layer, other):
        (each(x) ** 2).sum().backward()
    for one, two in zip(layer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-13, atol=1e-13)


# --- what gradient descent does with the parts ------------------------------------------------------------------------


def test_the_gradient_of_v_is_orthogonal_and_v_grows_by_the_square_root():
    layer, x = made("conv2")
    (layer(x) ** 3).sum().backward()
    _, v = (part for part in layer.parametrizations.weight.parameters())
    before, slope = v.detach().flatten(1).clone(), v.grad.flatten(1)
    cosine = (before * slope).sum(1) / (before.norm(dim=1) * slope.norm(dim=1))
    assert cosine.abs().max() < 1e-12
    torch.optim.SGD([v], lr=0.7).step()
    ratio = 0.7 * slope.norm(dim=1) / before.norm(dim=1)
    torch.testing.assert_close(
        v.detach().flatten(1).norm(dim=1), before.norm(dim=1) * (1 + ratio**2).sqrt(), rtol=1e-12, atol=0
    )


def test_a_hundred_steps_are_those_worked_out_by_hand():
    x, y, layers = normal.start()
    model = nn.Sequential(*[layer for o, i in ((6, 4), (3, 6)) for layer in (nn.Linear(i, o), nn.Tanh())][:-1]).double()
    for layer, (w, b) in zip((model[0], model[2]), layers, strict=True):
        nk.set_weight(layer, w)
        nk.set_weight(layer, b, "bias")
    nk.weight_norm(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=normal.RATE)
    for _ in range(normal.STEPS):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(torch.tensor(x)), torch.tensor(y)).backward()
        optimizer.step()
    for layer, (v, g, b) in zip((model[0], model[2]), normal.trained(), strict=True):
        at_g, at_v = (part.detach().numpy() for part in layer.parametrizations.weight.parameters())
        np.testing.assert_allclose(at_v, v, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(at_g, g, rtol=1e-12)
        np.testing.assert_allclose(layer.bias.detach(), b, rtol=1e-12, atol=1e-13)
