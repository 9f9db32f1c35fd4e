"""One decay in the units of another library, proved by trajectories; and the number for a wish.

optax' two rules are tried in the folder of the JAX door: what imports jax runs apart.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pulled
from normkit import ArgumentError
from normkit.decay import CONVENTIONS, convert_decay, solve_decay

RATES = [0.5, 0.4, 0.25, 0.05]  # the first is the highest
NAMES = [name for name in CONVENTIONS if not CONVENTIONS[name].adaptive]

# what is left of a weight without a gradient after a step at the rate `lr`, from each library's source
LEFT = {
    "torch.SGD": lambda decay, lr: 1 - lr * decay,
    "torch.AdamW": lambda decay, lr: 1 - lr * decay,
    "torch.Muon": lambda decay, lr: 1 - lr * decay,
    "keras": lambda decay, lr: 1 - decay * lr,
    "keras.L2": lambda decay, lr: 1 - lr * 2 * decay,  # with SGD: the gradient of decay sum w^2
    "optax.adamw": lambda decay, lr: 1 - lr * decay,
    "optax.adafactor": lambda decay, lr: 1 - decay,
    "tfa": lambda decay, lr: 1 - decay,
    "timm.AdamW": lambda decay, lr: 1 - lr * decay,
    "timm.corrected": lambda decay, lr: 1 - lr**2 / RATES[0] * decay,
    "composer": lambda decay, lr: 1 - lr / RATES[0] * decay,
    "normkit.l2": lambda decay, lr: 1 - lr * decay,
    "normkit.decoupled": lambda decay, lr: 1 - lr * decay,
    "normkit.independent": lambda decay, lr: 1 - lr / RATES[0] * decay,
    "normkit.corrected": lambda decay, lr: 1 - lr**2 / RATES[0] * decay,
}


def test_every_convention_is_here():
    assert set(LEFT) == set(NAMES)


def of_torch(optimizer, decay):
    w = torch.tensor([2.0], dtype=torch.float64).requires_grad_()
    made = {"torch.SGD": torch.optim.SGD, "torch.AdamW": torch.optim.AdamW}[optimizer]([w], lr=1.0, weight_decay=decay)
    for lr in RATES:
        made.param_groups[0]["lr"] = lr
        w.grad = torch.zeros_like(w)
        made.step()
    return w.item()


@pytest.mark.parametrize("name", ["torch.SGD", "torch.AdamW"])
def test_the_rules_are_what_the_libraries_do(name):
    assert of_torch(name, 0.1) == pytest.approx(2 * math.prod(LEFT[name](0.1, lr) for lr in RATES), rel=1e-6)


@pytest.mark.parametrize("target", ["torch.SGD", "keras.L2", "keras", "tfa", "timm.corrected", "composer"])
@pytest.mark.parametrize("source", NAMES)
def test_converted_it_does_the_same_at_every_rate_or_is_refused(source, target):
    """Equal at the first rate always; at all of them exactly where that is not refused."""
    decay = 0.08
    there = convert_decay(decay, source=source, target=target, lr=RATES[0], constant_lr=True)
    equal = [LEFT[target](there, lr) == pytest.approx(LEFT[source](decay, lr), rel=1e-14) for lr in RATES]
    assert equal[0]
    if all(equal):
        assert convert_decay(decay, source=source, target=target, lr=RATES[0]) == there
    else:
        with pytest.raises(ArgumentError, match="are equal only while lr stays as it is; then "):
            convert_decay(decay, source=source, target=target, lr=RATES[0])
        assert convert_decay(decay, source=source, target=target, lr=RATES[0], exact=False) == there
    back = convert_decay(there, source=target, target=source, lr=RATES[0], constant_lr=True)
    assert back == pytest.approx(decay, rel=1e-14)


def test_of_whole_trajectories():
    as_torch = pulled.trajectory("decoupled", "adam", weight_decay=0.2)
    composer = convert_decay(0.2, source="torch.AdamW", target="composer", lr=pulled.rate(0))
    np.testing.assert_allclose(pulled.trajectory("independent", "adam", weight_decay=composer), as_torch, atol=1e-14)
    tfa = convert_decay(0.2, source="torch.SGD", target="tfa", lr=0.1, constant_lr=True)
    per_step = pulled.trajectory("decoupled", "sgd", weight_decay=tfa / 0.1, lr=0.1)
    np.testing.assert_allclose(per_step, pulled.trajectory("l2", "sgd", weight_decay=0.2, lr=0.1), atol=1e-14)
    regularizer = convert_decay(0.2, source="torch.Adam", target="keras.L2")
    by_loss = pulled.trajectory(None, "adam", penalty=lambda w: 2 * regularizer * w)
    np.testing.assert_allclose(by_loss, pulled.trajectory("l2", "adam", weight_decay=0.2), atol=1e-14)


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_with_momentum_the_long_run_is_the_same(dampening):
    number = convert_decay(
        1e-3, source="torch.SGD", target="torch.AdamW", momentum=0.9, dampening=dampening, exact=False
    )
    w = torch.ones(1, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9, dampening=dampening, weight_decay=1e-3)
    kept = []
    for _ in range(600):
        w.grad = torch.zeros_like(w)
        before = w.item()
        optimizer.step()
        kept.append(w.item() / before)
    assert 1 - kept[-1] == pytest.approx(0.1 * number, rel=2e-2)  # to first order in lr decay / (1 - momentum)
    assert convert_decay(1e-3, source="torch.SGD", target="keras.L2", momentum=0.9) == 5e-4


def convert(source="torch.SGD", target="keras", decay=0.01, **more):
    return lambda: convert_decay(decay, source=source, target=target, **more)


def solve(**more):
    return lambda: solve_decay(**{"lr": 0.001, **more})


REFUSED = {
    "source='torch.optim.AdamW': did you mean 'torch.AdamW'? expected one of 'torch.SGD', ": convert(
        "torch.optim.AdamW"
    ),
    "source='keras.optimizers.Adam': did you mean 'keras'? ": convert("keras.optimizers.Adam"),
    "target='AdamW': did you mean 'torch.AdamW' or 'optax.adamw' or 'timm.AdamW'? ": convert(target="AdamW"),
    "source='optax.lion': did you mean 'optax.adamw' or 'optax.adafactor'? ": convert("optax.lion"),
    "source=None: expected one of 'torch.SGD'": convert(None),
    "weight_decay=-0.1: expected a finite number of at least 0": convert(decay=-0.1),
    "weight_decay=True: expected a finite number": convert(decay=True),
    "weight_decay=nan: expected a finite number": convert(decay=math.nan),
    "lr=0: expected a finite number above 0": convert(target="tfa", lr=0),
    "momentum=1: expected a number of at least 0 and below 1": convert(momentum=1),
    "lr is needed: the decay of torch.SGD is times lr and the other is not; give the rate at the start": convert(
        target="composer"
    ),
    "torch.Adam takes its decay through the preconditioner": convert("torch.Adam", "torch.AdamW", exact=False),
    "with momentum=0.9, decay by the gradient (torch.SGD) is delayed, so no number does the same with keras; 0.1 has "
    "the same long-run shrink": convert(momentum=0.9),
    "the decay of tfa (w <- w - lambda w) and that of torch.AdamW (w <- w - lr lambda w) are equal only while lr stays "
    "as it is; then 1e-05 is the number: say constant_lr=True": convert("torch.AdamW", "tfa", lr=0.001),
    "nothing was given; expected exactly one of timescale=, length=, update_ratio=": solve(),
    "timescale and length were given; expected exactly one": solve(timescale=10, length=1.0),
    "length=1 needs count=, the number of entries whose length is meant": solve(length=1.0),
    "count=0: expected a finite number of at least 1": solve(length=1.0, count=0),
    "timescale=0: expected a finite number above 0": solve(timescale=0),
    "timescale=0.5: each step would have to take 2 times the weight; expected below 1": solve(timescale=0.5),
    "beta1=1.0: expected a number of at least 0 and below 1": solve(update_ratio=0.1, beta1=1.0),
    "kind='l2' does not take the same share of every weight": solve(timescale=10, kind="l2"),
    "kind='cautious' does not take the same share of every weight": solve(timescale=10, kind="cautious"),
    "kind='constant': expected one of 'l2', 'decoupled'": solve(timescale=10, kind="constant"),
    "kind='independent' needs lr_ref, and it is None": solve(timescale=10, kind="independent"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refused(sentence):
    with pytest.raises(ArgumentError) as caught:
        REFUSED[sentence]()
    assert str(caught.value).startswith(sentence)


# -- the number for a wish ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["decoupled", "independent", "corrected"])
def test_after_the_timescale_an_eth_is_left(kind):
    decay = solve_decay(lr=0.05, timescale=400, kind=kind, lr_ref=0.2)
    left = pulled.trajectory(kind, steps=400, weight_decay=decay, lr=0.05, lr_ref=0.2, gradient=lambda w: 0 * w)
    np.testing.assert_allclose(left[-1], pulled.START / math.e, rtol=2e-3)


def noisy(decay, *, start, steps, beta1, lr=1e-2, count=4000):
    """The mean length, and the root of the mean squared |dw| / |w|, of a weight whose gradient is noise: AdamW."""
    torch.manual_seed(0)
    w = torch.randn(count, dtype=torch.float64)
    w = (w * start / w.norm()).requires_grad_()
    optimizer = torch.optim.AdamW([w], lr=lr, betas=(beta1, 0.999), weight_decay=decay)
    lengths, ratios = [], []
    for _ in range(steps):
        before = w.detach().clone()
        w.grad = torch.randn_like(w)
        optimizer.step()
        lengths.append(before.norm().item())
        ratios.append(((w.detach() - before).norm() / before.norm()).item())
    return np.sqrt(np.mean(np.square([lengths[steps // 2 :], ratios[steps // 2 :]]), axis=1))


def test_adamw_gets_the_length_and_the_update_ratio_that_were_wished_for():
    decay = solve_decay(lr=1e-2, length=5.0, count=4000, beta1=0.5)
    delta = 1e-2 * decay
    length, ratio = noisy(decay, start=5.5, steps=400, beta1=0.5)  # it begins too long and has forgotten that
    assert math.exp(-400 * delta) < 0.05
    assert length == pytest.approx(5.0, rel=0.03)
    assert ratio == pytest.approx(math.sqrt(2 * delta / 3), rel=0.03)
    assert solve_decay(lr=1e-2, update_ratio=math.sqrt(2 * delta / 3), beta1=0.5) == pytest.approx(decay, rel=1e-12)
    assert solve_decay(lr=1e-2, update_ratio=math.sqrt(2 * delta / 3), tau=3.0) == pytest.approx(decay, rel=1e-12)
    assert solve_decay(lr=1e-2, length=5.0, count=4000, rms=math.sqrt(1 / 3), tau=3.0) == pytest.approx(
        decay, rel=1e-12
    )


def test_units_of_the_other_kinds():
    wish = {"lr": 0.1, "length": 2.0, "count": 400}
    decay = solve_decay(**wish)
    assert solve_decay(**wish, kind="independent", lr_ref=0.4) == pytest.approx(decay * 0.4, rel=1e-12)
    assert solve_decay(**wish, kind="corrected", lr_ref=0.4) == pytest.approx(decay * 4, rel=1e-12)
