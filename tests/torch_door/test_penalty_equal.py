"""`l2` is the number that optimizers call `weight_decay`: bit for bit, and over all coupled ones of torch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")  # torch's own table of optimizers needs it
from torch import nn
from torch.testing._internal.common_optimizers import optim_db

import normkit.torch as nk
import pulled

pytestmark = [pytest.mark.usefixtures("one_thread")]

KINDS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "dampening": {"momentum": 0.9, "dampening": 0.5},
}
CURVE, GOAL = torch.tensor(pulled.CURVE), torch.tensor(pulled.GOAL)


def trained(make, weight_decay, steps, dtype=torch.float64, *, by_penalty, maximize=False):
    """The weight after some steps, pulled by the optimizer or by the penalty."""
    w = nn.Parameter(torch.tensor(pulled.START, dtype=dtype))
    optimizer = make([w], 0.0 if by_penalty else weight_decay)
    pull = nk.penalty(w, l2=weight_decay)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = 0.5 * (CURVE.to(dtype) * (w - GOAL.to(dtype)) ** 2).sum()
        loss = -loss if maximize else loss
        if by_penalty:
            loss = loss - pull() if maximize else loss + pull()
        loss.backward()
        optimizer.step()
    return w.detach()


def sgd(**options):
    return lambda params, weight_decay: torch.optim.SGD(params, lr=0.05, weight_decay=weight_decay, **options)


def both(make, weight_decay, steps, dtype=torch.float64, **options):
    return [trained(make, weight_decay, steps, dtype, by_penalty=which, **options) for which in (True, False)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 7])
def test_sgd_bit_for_bit_for_a_power_of_two(kind, steps, dtype):
    assert torch.equal(*both(sgd(**KINDS[kind]), 0.125, steps, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weight_decay", [0.1, 0.3, 1e-4])
def test_sgd_within_two_steps_of_the_last_digit_otherwise(weight_decay, dtype):
    torch.manual_seed(0)
    start, grad = torch.randn(50, 40, dtype=dtype), torch.randn(50, 40, dtype=dtype)
    found = []
    for by_penalty in (True, False):
        w = nn.Parameter(start.clone())
        optimizer = torch.optim.SGD([w], lr=1.0, weight_decay=0.0 if by_penalty else weight_decay)
        ((w * grad).sum() + (nk.penalty(w, l2=weight_decay)() if by_penalty else 0)).backward()
        optimizer.step()
        if by_penalty:
            summed = w.grad.clone()
        found.append(w.grad if by_penalty else grad.add(start, alpha=weight_decay))
    ulp = np.spacing(torch.maximum(grad.abs(), summed.abs()).numpy())
    assert (np.abs((found[0] - found[1]).numpy()) <= 2 * ulp).all()


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_sgd_over_fifty_steps(kind, dtype, close):
    mine, theirs = both(sgd(**KINDS[kind]), 0.3, 50, dtype)
    torch.testing.assert_close(mine, theirs, rtol=close, atol=close)
    reference = {"plain": "sgd", "momentum": "momentum", "nesterov": "nesterov"}.get(kind)
    if reference:
        path = pulled.trajectory(None, optimizer=reference, steps=50, lr=0.05, penalty=lambda w: 0.3 * w)
        np.testing.assert_allclose(mine.double(), path[-1], rtol=close, atol=close)


def test_adam_coupled_is_the_penalty_and_adamw_another_thing():
    def adam(params, weight_decay):
        return torch.optim.Adam(params, lr=0.05, weight_decay=weight_decay)

    def adamw(params, weight_decay):
        return torch.optim.AdamW(params, lr=0.05, weight_decay=weight_decay)

    mine, theirs = both(adam, 0.3, 300)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    other = trained(adamw, 0.3, 300, by_penalty=False)
    assert ((other - mine).abs().max() / mine.abs().max()).item() > 0.1


def coupled():
    """Every configuration of torch's own optimizers whose weight_decay goes through the gradient."""
    decoupled = ("AdamW", "Adafactor", "Muon")
    for info in optim_db:
        name = info.optim_cls.__name__
        for config in info.optim_inputs_func(device="cpu"):
            if (
                name in decoupled
                or not config.kwargs.get("weight_decay")
                or config.kwargs.get("decoupled_weight_decay")
            ):
                continue
            yield pytest.param(info.optim_cls, config.kwargs, id=f"{name}-{config.desc.replace(' ', '_')}")


@pytest.mark.parametrize(("kind", "config"), list(coupled()))
def test_every_coupled_optimizer_of_torch(kind, config):
    config = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in config.items()}
    weight_decay = config.pop("weight_decay")

    def make(params, decay):
        return kind(params, weight_decay=decay, **config)

    mine, theirs = both(make, weight_decay, 6, maximize=config.get("maximize", False))
    assert not torch.equal(theirs, torch.tensor(pulled.START))
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_there_are_as_many_coupled_optimizers_as_torch_has():
    kinds = {param.values[0].__name__ for param in coupled()}
    assert kinds == {"ASGD", "Adadelta", "Adagrad", "Adam", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD"}
