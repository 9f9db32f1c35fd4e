"""Every kind of decay on NumPy arrays and torch tensors, in loops of one's own, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pulled
from normal_methods import drawn
from normkit import ArgumentError
from normkit.decay import KINDS, coupled, decayed, refuse_divergent, share
from pulled_libraries import FEW, NUMPY, TORCH
from pulled_methods import CompiledSteps, Steps
from pulled_rows import DECAYS


class TestNumpyDecays(Steps):
    library, rows = NUMPY, DECAYS


class TestCompiledDecays(CompiledSteps):
    library, rows = TORCH, [DECAYS[3], DECAYS[5]]


class TestTorchDecays(Steps):
    library, rows = TORCH, DECAYS
    pers, dtypes = FEW


def test_each_kind_has_a_row():
    assert {row.name.split()[0] for row in DECAYS} == set(KINDS)


def by_hand(kind, steps=12, **more):
    """Plain SGD with normkit's functions, in a loop without an optimizer."""
    w, path = pulled.START, [pulled.START]
    for step in range(steps):
        lr, factor, grad = pulled.rate(step), pulled.fading(step), pulled.loss_gradient(w)
        if kind == "l2":
            w = w - lr * coupled(grad, w, pulled.WEIGHT_DECAY * factor)
        else:
            given = {"lr": lr, "kind": kind, "lr_ref": pulled.rate(0), "factor": factor, **more}
            given |= {"update": -lr * grad} if kind == "cautious" else {}
            w = decayed(w, pulled.WEIGHT_DECAY, **given) - lr * grad
        path.append(w)
    return np.array(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_by_hand(kind):
    more = {"reference": pulled.START} if kind == "toward" else {}
    expected = pulled.trajectory(kind, steps=12, factor=pulled.fading)
    np.testing.assert_allclose(by_hand(kind, **more), expected, rtol=0, atol=1e-13)
    assert np.abs(expected[-1] - pulled.trajectory(None, steps=12)[-1]).max() > 1e-3


def test_a_loop_by_hand_toward_a_length_of_each_row():
    expected = pulled.trajectory("toward", steps=12, factor=pulled.fading, length=2.0, kept=(0,))
    np.testing.assert_allclose(by_hand("toward", length=2.0, per=0), expected, rtol=0, atol=1e-13)


OPTIMIZERS = {
    "sgd": lambda w, decay: torch.optim.SGD([w], lr=0.1, weight_decay=decay),
    "momentum": lambda w, decay: torch.optim.SGD([w], lr=0.1, momentum=pulled.MOMENTUM, weight_decay=decay),
    "nesterov": lambda w, decay: torch.optim.SGD(
        [w], lr=0.1, momentum=pulled.MOMENTUM, nesterov=True, weight_decay=decay
    ),
    "adam": lambda w, decay: torch.optim.Adam([w], lr=0.1, betas=pulled.BETAS, weight_decay=decay),
    "adamw": lambda w, decay: torch.optim.AdamW([w], lr=0.1, betas=pulled.BETAS, weight_decay=decay),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_oracle_is_what_torch_does(name):
    w = torch.tensor(pulled.START).requires_grad_()
    optimizer = OPTIMIZERS[name](w, pulled.WEIGHT_DECAY)
    expected = pulled.trajectory("decoupled" if name == "adamw" else "l2", name.removesuffix("w"), steps=20)
    for step in range(20):
        optimizer.param_groups[0]["lr"] = pulled.rate(step)
        w.grad = torch.tensor(pulled.loss_gradient(w.detach().numpy()))
        optimizer.step()
        np.testing.assert_allclose(w.detach(), expected[step + 1], rtol=0, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1.9), st.floats(0, 1), st.sampled_from(["decoupled", "independent", "corrected", "cautious"]))
def test_no_decay_turns_or_lengthens_a_weight_unless_it_takes_all(taken, factor, kind):
    w = drawn()
    found = decayed(w, taken, lr=1.0, lr_ref=1.0, kind=kind, factor=factor, update=-w)
    assert (np.abs(found) <= np.abs(w)).all()
    if taken <= 1:
        assert (found * w >= 0).all()


@pytest.mark.parametrize("kind", ["decoupled", "independent", "corrected", "toward"])
def test_without_a_coefficient_no_bit_changes(kind):
    w = drawn().astype(np.float16)
    np.testing.assert_array_equal(decayed(w, 0.0, lr=0.1, lr_ref=0.1, kind=kind, reference=w), w)


W = drawn((2, 3))
REFUSED = {
    "kind='weight': expected one of 'l2', 'decoupled', 'independent'": lambda: decayed(W, 0.1, lr=1.0, kind="weight"),
    "kind=None: expected one of 'l2'": lambda: share(None, 0.1, lr=1.0),
    "kind='l2' goes through the gradient": lambda: decayed(W, 0.1, lr=1.0, kind="l2"),
    "kind='independent' needs lr_ref, and it is None": lambda: decayed(W, 0.1, lr=1.0, kind="independent"),
    "kind='corrected' needs lr_ref, and it is 0": lambda: decayed(W, 0.1, lr=1.0, kind="corrected", lr_ref=0),
    "kind='independent' needs lr_ref, and it is np.float32(0.0)": lambda: share(
        "independent", 0.1, lr=1.0, lr_ref=np.float32(0)
    ),
    "kind='cautious' needs update=, an array like the weight": lambda: decayed(W, 0.1, lr=1.0, kind="cautious"),
    "kind='toward' needs reference or length=": lambda: decayed(W, 0.1, lr=1.0, kind="toward"),
    "an array of int64 was given": lambda: decayed(np.arange(3), 0.1, lr=1.0),
    "lr=1, weight_decay=2: each step would take 2 times the weight": lambda: refuse_divergent(
        2.0, "lr=1, weight_decay=2"
    ),
    "length has shape (2,); expected a number, or one for each group: (2, 1)": lambda: decayed(
        W, 0.1, lr=1.0, kind="toward", length=np.ones(2), per=0
    ),
    "the gradient is of shape (3,) beside a weight of shape (2, 3)": lambda: coupled(W[0], W, 0.1),
    "the reference is of shape (3,) beside a weight of shape (2, 3)": lambda: decayed(
        W, 0.1, lr=1.0, kind="toward", reference=W[0]
    ),
    "the update is of shape (3,) beside a weight of shape (2, 3)": lambda: decayed(
        W, 0.1, lr=1.0, kind="cautious", update=W[0]
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refused(sentence):
    with pytest.raises(ArgumentError) as caught:
        REFUSED[sentence]()
    assert str(caught.value).startswith(sentence)


def test_a_share_below_two_is_not_refused():
    refuse_divergent(math.nextafter(2.0, 0), "")
