"""What people type by mistake around penalties, decay and limits in JAX, and the sentences they read."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.errors import ArgumentError, ModelError, StateError

jax = pytest.importorskip("jax", reason="jax is not installed")
pytest.importorskip("flax", reason="flax is not installed")
optax = pytest.importorskip("optax", reason="optax is not installed")

from flax import nnx
from flax.training.train_state import TrainState

import normkit.jax as nk

PARAMS = {"fc": {"kernel": np.ones((4, 3), np.float32), "bias": np.ones(3, np.float32)}}
BIASES = {"bias": np.ones(3, np.float32)}
SGD = optax.sgd(0.1)
WARMUP = optax.linear_schedule(0.0, 0.1, 10)


def parts():
    return nk.weight_norm(PARAMS)


def decay(weight_decay=0.1, learning_rate=0.1, optimizer=SGD, **more):
    return nk.decay(optimizer, weight_decay, learning_rate=learning_rate, **more)


def step(optimizer, params=PARAMS, state=None, given=None):
    return optimizer.update(given or params, optimizer.init(PARAMS) if state is None else state, params)


REFUSED = {
    "nothing": (lambda: nk.penalty(PARAMS), r"penalty\(\): expected a coefficient above 0 for one of l1, l2, group"),
    "zero": (lambda: nk.penalty(PARAMS, l2=0.0), r"penalty\(l2=0.0\): expected a coefficient above 0"),
    "negative": (lambda: nk.penalty(PARAMS, l2=-1e-4), r"l2=-0.0001: expected a finite number of at least 0"),
    "nan": (lambda: nk.penalty(PARAMS, l1=float("nan")), r"l1=nan: expected a finite number of at least 0"),
    "true": (lambda: nk.penalty(PARAMS, l2=True), r"l2=True: expected a finite number"),
    "text": (lambda: nk.penalty(PARAMS, l2="1e-4"), r"l2='1e-4': expected a finite number"),
    "traced": (
        lambda: jax.jit(lambda c: nk.penalty(PARAMS, l2=c))(0.1),
        r"l2=<float32 that jax traces>: expected .*; for one that changes or is traced, multiply outside",
    ),
    "no kernels": (lambda: nk.penalty(BIASES, l2=0.1), r"none of the 1 arrays given is a kernel; name those to pen"),
    "no match": (lambda: nk.penalty(PARAMS, l2=0.1, select="fd.*"), r"select='fd\.\*' matches none of 2 parameters"),
    "initial": (
        lambda: nk.penalty(PARAMS, toward=0.1, reference="initial"),
        r"penalty\(toward=0.1, reference='initial'\): a pure function remembers no values; give the tree itself",
    ),
    "no reference": (lambda: nk.penalty(PARAMS, toward=0.1), r"penalty\(toward=0.1, reference=None\): a pure function"),
    "only a reference": (
        lambda: nk.penalty(PARAMS, l2=0.1, reference=PARAMS),
        r"reference=.* is for toward=, and that",
    ),
    "reference lacks": (
        lambda: nk.penalty(PARAMS, toward=0.1, reference=BIASES),
        r"reference lacks fc\.kernel of shape \(4, 3\); it has bias: give a tree like params",
    ),
    "reference shape": (
        lambda: nk.penalty(PARAMS, toward=0.1, reference={"fc.kernel": np.ones((3, 4))}),
        r"fc\.kernel: the reference is of shape \(3, 4\) beside a weight of shape \(4, 3\)",
    ),
    "unknown axes": (
        lambda: nk.penalty([np.ones((3, 4), np.float32)], group=0.1),
        r"per is 'out', but its layer does not say which axes of 0 of shape \(3, 4\) these are: give the numbers",
    ),
    "complex": (
        lambda: nk.penalty({"kernel": np.ones((2, 2), np.complex64)}, l2=0.1),
        r"kernel is of complex64; expected real numbers: leave it out with select='!kernel'",
    ),
    "no rate": (
        lambda: nk.decay(SGD, 0.1),
        r"learning_rate=None: expected a finite number of at least 0, or a schedule \(step -> number\); give the",
    ),
    "rate of text": (lambda: decay(learning_rate="0.1"), r"learning_rate='0.1': expected a finite number"),
    "no schedule": (lambda: decay(learning_rate=lambda: 0.1), r"learning_rate=<.*> could not be asked for step 0 \("),
    "no number": (lambda: decay(schedule=lambda step: None), r"schedule\(0\) gave None: expected a schedule, step ->"),
    "a schedule as decay": (
        lambda: decay(WARMUP),
        r"weight_decay=<.*>: expected .*; a number that changes goes to schedule=, as a factor",
    ),
    "warmup": (
        lambda: decay(kind="independent", learning_rate=WARMUP),
        r"kind='independent' needs lr_ref, and it is 0",
    ),
    "lr_ref of text": (lambda: decay(kind="corrected", lr_ref="0.1"), r"lr_ref='0.1': expected a finite number"),
    "lr_ref 0": (lambda: decay(kind="corrected", lr_ref=0), r"kind='corrected' needs lr_ref, and it is 0"),
    "per": (lambda: decay(per="out"), r"decay\(kind='decoupled', per='out'\): per= is for the groups of length="),
    "kind": (lambda: decay(kind="adamw"), r"kind='adamw': expected one of 'l2', 'decoupled', 'independent'"),
    "divergent": (
        lambda: decay(3.0, kind="independent"),
        r"decay\(weight_decay=3, kind='independent'\) in step 0: each step would take 3 times the weight",
    ),
    "divergent later": (
        lambda: step(decay(1.0, learning_rate=lambda step: 3.0 * step), state=decay().init(PARAMS)._replace(count=1)),
        r"decay\(weight_decay=1, kind='decoupled'\) in step 1: each step would take 3 times the weight",
    ),
    "no aim": (
        lambda: decay(kind="toward"),
        r"kind='toward' needs one of reference= and length=, and neither was given",
    ),
    "two aims": (
        lambda: decay(kind="toward", reference="initial", length=1.0),
        r"needs one of .*, and both were given",
    ),
    "an aim": (lambda: decay(reference="initial"), r"decay\(kind='decoupled', reference=...\): only kind='toward' has"),
    "aim word": (lambda: decay(kind="toward", reference="first"), r"reference='first': expected 'initial', or a tree"),
    "aim length": (
        lambda: decay(kind="toward", length=-1.0),
        r"length=-1.0: expected a finite number of at least 0; or",
    ),
    "aim lacks": (
        lambda: decay(kind="toward", reference=BIASES).init(PARAMS),
        r"reference: fc\.kernel is absent, and of shape \(4, 3\) in params; expected a tree like params",
    ),
    "no transformation": (lambda: decay(optimizer=PARAMS), r"decay\(.*\): expected an optax transformation, such as"),
    "not called": (lambda: decay(optimizer=optax.adam), r"decay\(adam\): this makes a transformation; call it first"),
    "of nnx": (
        lambda: nk.constrain(nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), SGD, wrt=nnx.Param), max_norm=1.0),
        r"constrain\(Optimizer\): this holds a transformation; wrap the transformation itself before",
    ),
    "train state": (
        lambda: nk.proximal(TrainState.create(apply_fn=None, params=PARAMS, tx=SGD), l1=0.1, learning_rate=0.1),
        r"proximal\(TrainState\): this holds a transformation",
    ),
    "no params": (
        lambda: decay().update(PARAMS, decay().init(PARAMS)),
        r"update\(updates, state\) of nk\.decay\(\.\.\.\) was called with params=None; what it does depends on the w",
    ),
    "other tree": (
        lambda: step(decay(), given={"other": np.ones(2)}),
        r"update\(<dict>, state, <dict>\): none of 1 updates stands where one of the weights does",
    ),
    "no limit": (
        lambda: nk.constrain(SGD),
        r"constrain\(.*\): expected one of max_norm, unit_norm, min_max_norm, hold",
    ),
    "two limits": (
        lambda: nk.constrain(SGD, max_norm=1.0, hold=2.0),
        r"constrain\(\.\.\., max_norm=1.0, hold=2.0\): expected one of .*; wrap again for another one",
    ),
    "limit 0": (lambda: nk.constrain(SGD, max_norm=0.0), r"max_norm=0.0: expected a length, a finite number above 0"),
    "unit 2": (
        lambda: nk.constrain(SGD, unit_norm=2.0),
        r"unit_norm=2.0: expected True; for another length take hold=",
    ),
    "lo, hi": (
        lambda: nk.constrain(SGD, min_max_norm=(2, 1)),
        r"min_max_norm=\(2, 1\): expected two lengths \(lo, hi\)",
    ),
    "hold zeros": (
        lambda: nk.constrain(SGD, hold="initial").init({"kernel": np.zeros((4, 3), np.float32)}),
        r"hold='initial': kernel of shape \(4, 3\) has 3 groups of length 0, which would stay so for ever",
    ),
    "project without state": (
        lambda: nk.constrain(SGD, hold="initial").project(PARAMS),
        r"project\(<dict>\): the lengths of hold='initial' are in the state; call project\(params, state\)",
    ),
    "no coefficient": (
        lambda: nk.proximal(SGD, learning_rate=0.1),
        r"proximal\(l1=None, group=None\): expected a coef",
    ),
    "no rate to threshold": (lambda: nk.proximal(SGD, l1=0.1), r"learning_rate=None: .*: a threshold is lr times the"),
}

MODELS = {
    "adamw": (
        lambda: decay(optimizer=optax.chain(optax.clip(1.0), optax.adamw(0.1))),
        r"this optimizer decays all weights with 0.0001 by itself, .*: they would be decayed twice; make it with",
    ),
    "lion in multisteps": (lambda: decay(optimizer=optax.MultiSteps(optax.lion(0.1), 2)), r"all weights with 0.001 by"),
    "scheduled": (lambda: decay(optimizer=optax.add_decayed_weights(WARMUP)), r"all weights by a schedule by itself"),
    "l2 of multisteps": (
        lambda: decay(optimizer=optax.MultiSteps(SGD, 2), kind="l2").init(PARAMS),
        r"decay\(kind='l2'\) around optax\.MultiSteps would add to each gradient .*; put it inside",
    ),
    "groups of others": (
        lambda: nk.constrain(SGD, max_norm=1.0, per="in").init(parts()),
        r"constrain\(max_norm=\.\.\.\) with per='in': fc\.kernel of .* its g holds the lengths .*; take per=\(1,\), or",
    ),
    "cap of parts": (
        lambda: nk.constrain(SGD, spectral_cap=1.0).init(parts()),
        r"spectral_cap=1: fc\.kernel of shape \(4, 3\) is in two parts, whose singular values are no numbers of g",
    ),
    "l1 of parts": (
        lambda: nk.proximal(SGD, l1=0.1, learning_rate=0.1).init(parts()),
        r"proximal\(l1=0.1\): fc\.kernel of shape \(4, 3\) is in two parts, and zeros of its entries are no matter",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_are_refused(name):
    call, sentence = REFUSED[name]
    with pytest.raises(ArgumentError, match=sentence):
        call()


@pytest.mark.parametrize("name", MODELS)
def test_models_are_refused(name):
    call, sentence = MODELS[name]
    with pytest.raises(ModelError, match=sentence):
        call()


@pytest.mark.parametrize("made", [decay, lambda: nk.constrain(SGD, max_norm=1.0)])
def test_the_state_of_another_optimizer(made):
    with pytest.raises(StateError, match=r"was given a tuple as its state; make one by the init\(params\) of"):
        step(made(), state=SGD.init(PARAMS))


def test_masked_decay_inside_is_another_matter():
    assert decay(optimizer=optax.adamw(0.1, mask={"fc": {"kernel": False, "bias": True}})).init(PARAMS)
    assert decay(optimizer=optax.adamw(0.1, weight_decay=0.0)).init(PARAMS)
    assert decay(0.0, optimizer=optax.adamw(0.1)).init(PARAMS)
