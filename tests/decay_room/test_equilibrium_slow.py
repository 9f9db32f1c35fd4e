"""Known results of training with decay and penalties, reproduced with normkit's functions in plain loops.

Most run on a loss that does not depend on the scale of a row and whose gradient is noise, sum <noise, w / |w|>: a layer
before a normalization, with nothing to learn.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from normkit.decay import convert_decay, coupled, decayed, solve_decay
from normkit.penalize import l2, soft_threshold

pytestmark = pytest.mark.slow

ROWS, COUNT = 48, 256


@pytest.fixture(autouse=True)
def _one_thread():
    """Two would wait for each other longer than these small tensors take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradient(w, sigma):
    """Of sum <sigma noise, w / |w|>."""
    noise, length = sigma * torch.randn_like(w), w.norm(dim=1, keepdim=True)
    return (noise - (noise * w).sum(1, keepdim=True) * w / length**2) / length


def turned(a, b):
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    return 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))


def walked(optimizer, weight_decay, *, kind, length, steps, sigma=1.0, measured=1500):
    """Root mean squares of the length and of the angle of a step, per row, in the last steps of a random walk."""
    torch.manual_seed(0)
    w = torch.randn(ROWS, COUNT)
    w = torch.nn.Parameter(w * length / w.norm(dim=1, keepdim=True))
    made = optimizer([w])
    lr = made.param_groups[0]["lr"]
    found = torch.zeros(2, ROWS, dtype=torch.float64)
    for step in range(steps):
        old = w.detach().clone()
        w.grad = gradient(old, sigma)
        if kind == "l2":
            w.grad = coupled(w.grad, old, weight_decay)
        else:
            w.data.copy_(decayed(old, weight_decay, lr=lr, kind=kind))
        made.step()
        if step >= steps - measured:
            found += torch.stack([w.detach().norm(dim=1), turned(old, w.detach())]).double() ** 2 / measured
    return found


def rms(squares):
    return float(squares.mean().sqrt())


def test_sgd_with_momentum_finds_its_length_and_angle():
    """P1: within 1 %; Wan et al. 2020, arXiv:2006.08419, Kosson et al. 2023, arXiv:2305.17212."""
    lr, decay, momentum = 1e-2, 5e-3, 0.9
    expected = (lr * (COUNT - 1) / (2 * decay * (1 - momentum))) ** 0.25
    length, angle = walked(
        lambda p: torch.optim.SGD(p, lr, momentum=momentum), decay, kind="l2", length=1.2 * expected, steps=5000
    )
    assert rms(length) == pytest.approx(expected, rel=0.01)
    assert rms(angle) == pytest.approx(math.sqrt(2 * lr * decay / (1 + momentum)), rel=0.01)


LAYERS = torch.tensor([0.25, 1.0, 4.0]).repeat_interleave(ROWS // 3)[:, None]  # of gradients of other sizes
BETAS = (0.9, 0.99)


def test_adamw_finds_one_length_and_angle_whatever_the_size_of_gradients():
    """P2, P5: within 3 %; Kosson et al. 2023, arXiv:2305.17212; as `solve_decay` says."""
    lr, decay = 1e-3, 0.5
    expected = math.sqrt(lr * COUNT / (2 * decay))
    lengths, angles = walked(
        lambda p: torch.optim.Adam(p, lr, betas=BETAS),
        decay,
        kind="decoupled",
        length=1.1 * expected,
        steps=6000,
        sigma=LAYERS,
    )
    for length, angle in zip(lengths.chunk(3), angles.chunk(3), strict=True):
        assert rms(length) == pytest.approx(expected, rel=0.03)
        assert rms(angle) == pytest.approx(math.sqrt(2 * lr * decay * 0.1 / 1.9), rel=0.03)
    assert solve_decay(lr=lr, length=expected, count=COUNT) == pytest.approx(decay, rel=1e-12)


def test_adam_with_l2_turns_layers_with_smaller_gradients_faster():
    """P5: the length goes with the cube root of the size of gradients, within 3 %; arXiv:2305.17212."""
    lr, decay = 1e-3, 0.2
    expected = (lr * COUNT * LAYERS / (2 * decay)) ** (1 / 3)
    lengths, angles = walked(
        lambda p: torch.optim.Adam(p, lr, betas=BETAS),
        decay,
        kind="l2",
        length=0.9 * expected,
        steps=10_000,
        sigma=LAYERS,
    )
    for length, angle, there in zip(lengths.chunk(3), angles.chunk(3), expected.chunk(3), strict=True):
        assert rms(length) == pytest.approx(float(there[0]), rel=0.03)
        assert rms(angle) == pytest.approx(lr * math.sqrt(COUNT * 0.1 / 1.9) / float(there[0]), rel=0.03)


# -- the same minimum -----------------------------------------------------------------------------------------------


def trained(optimizer, penalty=None, decay=None, steps=300):
    torch.manual_seed(0)
    x, y = torch.randn(256, 20, dtype=torch.float64), torch.randn(256, 1, dtype=torch.float64)
    net = torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)).double()
    made = optimizer(net.parameters())
    for step in range(steps):
        made.zero_grad()
        batch = torch.arange(step * 32, step * 32 + 32) % 256
        loss = ((net(x[batch]) - y[batch]) ** 2).mean()
        if penalty is not None:
            loss = loss + sum(penalty(w) for w in net.parameters())
        loss.backward()
        if decay is not None:
            with torch.no_grad():
                for w in net.parameters():
                    w.copy_(decayed(w, decay, lr=made.param_groups[0]["lr"]))
        made.step()
    return torch.cat([w.detach().ravel() for w in net.parameters()])


def apart(a, b):
    return float((a - b).norm() / a.norm())


@pytest.mark.parametrize(
    "make",
    [
        lambda p, **more: torch.optim.SGD(p, 0.05, **more),
        lambda p, **more: torch.optim.SGD(p, 0.005, momentum=0.9, **more),
        lambda p, **more: torch.optim.SGD(p, 0.005, momentum=0.9, nesterov=True, **more),
        lambda p, **more: torch.optim.Adam(p, 0.01, **more),
    ],
    ids=["sgd", "momentum", "nesterov", "adam"],
)
def test_the_penalty_is_the_weight_decay_of_coupled_optimizers(make):
    """P7: to 1e-12; Loshchilov & Hutter 2019, arXiv:1711.05101; Keras' L2 with half the number."""
    coupled_decay = trained(lambda p: make(p, weight_decay=0.01))
    assert apart(coupled_decay, trained(make, lambda w: 0.01 * l2(w))) < 1e-12
    regularizer = convert_decay(0.01, source="torch.SGD", target="keras.L2")
    assert apart(coupled_decay, trained(make, lambda w: regularizer * (w**2).sum())) < 1e-12


def test_decoupled_decay_is_another():
    """P7: by more than 0.1 with Adam."""
    adam = lambda p, **more: torch.optim.Adam(p, 0.01, **more)  # noqa: E731
    by_penalty = trained(adam, lambda w: 0.01 * l2(w))
    by_decay = trained(adam, decay=0.01)
    assert apart(by_penalty, by_decay) > 0.1
    assert apart(trained(lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.01)), by_decay) < 1e-12


# -- a falling rate -------------------------------------------------------------------------------------------------


def risen(optimizer, lr_ref, weight_decay, *, kind, length, steps=16_000):
    """|g| / |w| when the cosine schedule is through a quarter, a half, three quarters and nine tenths of its steps."""
    torch.manual_seed(0)
    w = torch.randn(ROWS, 128)
    w = torch.nn.Parameter(w * length / w.norm(dim=1, keepdim=True))
    made = optimizer([w])
    ratios = []
    for step in range(steps):
        lr = made.param_groups[0]["lr"] = lr_ref * 0.5 * (1 + math.cos(math.pi * step / steps))
        old = w.detach().clone()
        w.grad = gradient(old, 1.0)
        ratios.append(float(w.grad.norm() / old.norm()))
        w.data.copy_(decayed(old, weight_decay, lr=lr, kind=kind, lr_ref=lr_ref))
        made.step()
    return [np.mean(ratios[int(share * steps) - 100 : int(share * steps)]) for share in (0.25, 0.5, 0.75, 0.9)]


CASES = {
    "sgd": (lambda p: torch.optim.SGD(p, 0.1), 0.1, 5e-3, 5.95),
    "adam": (lambda p: torch.optim.Adam(p, 1e-3, betas=BETAS), 1e-3, 0.5, 0.358),
}


@pytest.mark.parametrize("name", CASES)
def test_a_falling_rate_raises_gradients_unless_the_decay_is_corrected(name):
    """P10: flat within 2 %, against a rise by more than 1.3; Defazio 2025, arXiv:2506.02285."""
    optimizer, lr_ref, decay, length = CASES[name]
    plain = risen(optimizer, lr_ref, decay, kind="decoupled", length=length)
    corrected = risen(optimizer, lr_ref, decay, kind="corrected", length=length)
    assert plain[-1] / plain[0] > 1.3
    assert max(corrected) / min(corrected) < 1.02
    if name == "sgd":
        assert corrected == pytest.approx([math.sqrt(2 * decay / lr_ref)] * 4, rel=0.02)


# -- zeros and ranks ------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn():
    """The numbers of both problems, in the order in which they were first drawn."""
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    y, left, right = make(12, 9), make(12, 9) * 0.3, make(9, 9) * 0.3
    basis, _ = torch.linalg.qr(make(100, 40))
    return y, left, right, basis, make(40)


def test_decay_of_both_factors_is_a_threshold_for_singular_values(drawn):
    """P11: to 1e-8; Srebro 2005."""
    y, left, right, *_ = drawn
    decay = 1.5
    u, sigma, v = torch.linalg.svd(y, full_matrices=False)
    expected = u * soft_threshold(sigma, decay) @ v
    factors = [left.requires_grad_(), right.requires_grad_()]
    optimizer = torch.optim.SGD(factors, 0.05, momentum=0.9)
    for _ in range(3000):
        off = (left @ right - y).detach()
        for w, grad in zip(factors, (off @ right.detach().T, left.detach().T @ off), strict=True):
            w.grad = coupled(grad, w.detach(), decay)
        optimizer.step()
    product = (left @ right).detach()
    assert apart(expected, product) < 1e-8
    assert torch.linalg.matrix_rank(product, atol=1e-6) == (sigma > decay).sum()
    nuclear = torch.linalg.svdvals(product).sum()
    assert float(l2(left.detach()) + l2(right.detach())) == pytest.approx(float(nuclear), rel=1e-8)


def test_proximal_steps_find_all_14_zeros_and_gradient_steps_none(drawn):
    """P12: exact."""
    *_, basis, truth = drawn
    l1, lr = 0.5, 0.05
    expected = soft_threshold(truth, l1)
    torch.manual_seed(1)
    by_prox = by_gradient = torch.randn(40, dtype=torch.float64)
    for _ in range(4000):
        by_prox = soft_threshold(by_prox - lr * basis.T @ (basis @ by_prox - basis @ truth), lr * l1)
        pull = l1 * by_gradient.sign()
        by_gradient = by_gradient - lr * (basis.T @ (basis @ by_gradient - basis @ truth) + pull)
    assert int((expected == 0).sum()) == 14
    assert torch.equal(by_prox == 0, expected == 0)
    assert (by_prox - expected).abs().max() < 1e-12
    assert int((by_gradient == 0).sum()) == 0
