"""What `convert_decay` says of optax is what optax does to a weight without a gradient."""

from __future__ import annotations

import math

import jax
import pytest

from normkit.decay import convert_decay

optax = pytest.importorskip("optax", reason="optax is not installed")
RATES = [0.5, 0.4, 0.25, 0.05]
MADE = {
    "optax.adamw": lambda schedule, decay: optax.adamw(schedule, weight_decay=decay),
    "optax.adafactor": lambda schedule, decay: optax.adafactor(schedule, weight_decay_rate=decay),
}


def left_of(name, decay):
    """What is left of a weight of 2 after a step at each of the rates."""
    w, made = jax.numpy.asarray([2.0]), MADE[name](lambda step: jax.numpy.asarray(RATES)[step], decay)
    state = made.init(w)

    @jax.jit
    def step(w, state):
        updates, state = made.update(w * 0, state, w)
        return optax.apply_updates(w, updates), state

    for _ in RATES:
        w, state = step(w, state)
    return float(w[0])


def test_adamw_is_times_lr():
    decay = convert_decay(0.1, source="normkit.decoupled", target="optax.adamw")
    assert left_of("optax.adamw", decay) == pytest.approx(2 * math.prod(1 - lr * 0.1 for lr in RATES), rel=1e-6)


def test_adafactor_is_not():
    decay = convert_decay(0.1, source="tfa", target="optax.adafactor")
    assert left_of("optax.adafactor", decay) == pytest.approx(2 * 0.9**4, rel=1e-6)
