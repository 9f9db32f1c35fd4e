"""Optimizers of optax that decay by themselves: `nk.decay` around one on the same weights is refused."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.errors import ModelError

pytest.importorskip("jax", reason="jax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

from optax import contrib

import normkit.jax as nk
from jax_quickly import quickly  # noqa: F401  # for the whole file

PARAMS = {"fc": {"kernel": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}}
SGD = optax.sgd(0.1)
WARMUP = optax.linear_schedule(0.0, 0.1, 10)


def mask(kernel, bias):
    return {"fc": {"kernel": kernel, "bias": bias}}


def decay(optimizer, weight_decay=0.1):
    return nk.decay(optimizer, weight_decay, learning_rate=0.1)


def of_labels(kernel, bias):
    return optax.partition({"adamw": optax.adamw(0.1), "sgd": SGD}, mask(kernel, bias))


ALL = {
    "adamw": optax.adamw(0.1),
    "in a chain": optax.chain(optax.clip(1.0), optax.adamw(0.1)),
    "in multisteps": optax.MultiSteps(optax.lion(0.1), 2),
    "below another rule": nk.constrain(optax.adamw(0.1), max_norm=1.0),
    "by a schedule": optax.chain(optax.add_decayed_weights(WARMUP), SGD),
    "injected": optax.inject_hyperparams(optax.adamw)(learning_rate=WARMUP),
    "under a mask of all": optax.lars(0.1, weight_decay=0.1),
    "with a formula of its own": contrib.prodigy(0.1, weight_decay=0.1),
}
SAME = {
    "masked": optax.adamw(0.1, mask=mask(True, False)),
    "masked by a function": optax.adamw(0.1, mask=lambda params: mask(True, False)),
    "masked twice": optax.masked(optax.adamw(0.1, mask=mask(True, False)), mask(True, True)),
    "injected and masked": optax.inject_hyperparams(optax.adamw)(0.1, mask=mask(True, False)),
    "labelled": of_labels("adamw", "sgd"),
    "muon": contrib.muon(0.1, weight_decay=0.1),
}
OTHERS = {
    "none": optax.adamw(0.1, weight_decay=0.0),
    "masked": optax.adamw(0.1, mask=mask(False, True)),
    "masked outside": optax.masked(optax.adamw(0.1), mask(False, True)),
    "injected and masked": optax.inject_hyperparams(optax.adamw)(0.1, mask=mask(False, True)),
    "labelled": of_labels("sgd", "adamw"),
    "injected": optax.inject_hyperparams(optax.adamw)(0.1, weight_decay=0.0),
}


@pytest.mark.parametrize("name", ALL)
def test_of_all_weights(name):
    with pytest.raises(ModelError, match=r"around an optimizer that decays all weights (with|by) .* by itself, as opt"):
        decay(ALL[name])


@pytest.mark.parametrize("name", SAME)
def test_of_the_same_weights(name):
    optimizer = decay(SAME[name])
    with pytest.raises(
        ModelError, match=r"decays fc\.kernel with 0\.\d+ by itself, .*, or give it a mask of other weig"
    ):
        optimizer.init(PARAMS)


@pytest.mark.parametrize("name", OTHERS)
def test_of_other_weights_it_is_another_matter(name):
    assert decay(OTHERS[name]).init(PARAMS)


def test_no_decay_around_is_no_second_one():
    assert decay(optax.adamw(0.1), weight_decay=0.0).init(PARAMS)


def test_functions_that_hold_themselves():
    def update(updates, state, params=None):
        return updates, (state, update)

    assert decay(optax.GradientTransformation(lambda params: (), update)).init(PARAMS) is not None
