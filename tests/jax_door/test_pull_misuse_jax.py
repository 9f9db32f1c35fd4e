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
from jax_quickly import quickly  # noqa: F401  # for the whole file

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
    "nothing": (lambda: nk.penalty(PARAMS), r"penalty: no coefficient above 0 among l1, l2, group, toward"),
    "zero": (lambda: nk.penalty(PARAMS, l2=0.0), r"penalty: no coefficient above 0 among l1"),
    "negative": (lambda: nk.penalty(PARAMS, l2=-1e-4), r"l2=-0.0001: expected a finite number of at least 0"),
    "nan": (lambda: nk.penalty(PARAMS, l1=float("nan")), r"l1=nan: expected a finite number of at least 0"),
    "true": (lambda: nk.penalty(PARAMS, l2=True), r"l2=True: expected a finite number"),
    "a function": (lambda: nk.penalty(PARAMS, l2=WARMUP), r"l2=function \S+: expected a finite number of at least 0"),
    "functions": (lambda: nk.penalty(SGD, l2=0.1), r"params=<GradientTransformationExtraArgs> holds no array"),
    "text": (lambda: nk.penalty(PARAMS, l2="1e-4"), r"l2='1e-4': expected a finite number"),
    "traced": (
        lambda: jax.jit(lambda c: nk.penalty(PARAMS, l2=c))(0.1),
        r"l2=<float32 without a value yet>: expected .*; for one that changes or is traced, multiply outside",
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
    "no schedule": (
        lambda: decay(learning_rate=lambda: 0.1),
        r"learning_rate=function <lambda> could not be asked for s",
    ),
    "no number": (lambda: decay(schedule=lambda step: None), r"schedule\(0\) gave None: expected a schedule, step ->"),
    "a schedule as decay": (
        lambda: decay(WARMUP),
        r"weight_decay=function \S+: expected .*; a number that changes goes to schedule=, as a factor",
    ),
    "warmup": (
        lambda: decay(kind="independent", learning_rate=WARMUP),
        r"kind='independent' needs lr_ref, and it is 0",
    ),
    "lr_ref of text": (lambda: decay(kind="corrected", lr_ref="0.1"), r"lr_ref='0.1': expected a finite number"),
    "lr_ref 0": (lambda: decay(kind="corrected", lr_ref=0), r"kind='corrected' needs lr_ref, and it is 0"),
    "per": (lambda: decay(per="out"), r"per='out': only a length has groups, as in kind='toward'"),
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
    "an aim": (lambda: decay(reference="initial"), r"reference='initial' is of no use with kind='decoupled'; it bel"),
    "aim word": (lambda: decay(kind="toward", reference="first"), r"reference='first': expected 'initial', or arrays"),
    "aim length": (
        lambda: decay(kind="toward", length=-1.0),
        r"length=-1.0: expected a finite number of at least 0, or",
    ),
    "aim lacks": (
        lambda: decay(kind="toward", reference=BIASES).init(PARAMS),
        r"reference: fc\.kernel is absent, and of shape \(4, 3\) in params; expected a tree like params",
    ),
    "no transformation": (lambda: decay(optimizer=PARAMS), r"decay\(.*\): expected an optax transformation, such as"),
    "not called": (
        lambda: decay(optimizer=optax.adam),
        r"decay\(function adam\): expected .*; a function that makes one is to be",
    ),
    "of nnx": (
        lambda: nk.constrain(nnx.Optimizer(nnx.Dict(w=nnx.Param(np.ones(2))), SGD, wrt=nnx.Param), max_norm=1.0),
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
        r"update\(<dict>, state, <dict>\) of nk\.decay\(\.\.\.\): none of 1 updates stands where one of the w",
    ),
    "no limit": (
        lambda: nk.constrain(SGD),
        r"constrain takes one of max_norm, .* in a call, and was given none of them",
    ),
    "two limits": (
        lambda: nk.constrain(SGD, max_norm=1.0, hold=2.0),
        r"constrain takes one of .*, and was given max_norm=1.0, hold=2.0; call it again for another",
    ),
    "chain of chains": (
        lambda: nk.constrain([SGD], max_norm=1.0),
        r"constrain\(\[<GradientTransformationExtraArgs>\]\)",
    ),
    "a schedule to wrap": (
        lambda: decay(optimizer=WARMUP),
        r"decay\(function \S+\): expected an optax transformation, su",
    ),
    "optimizer as rate": (
        lambda: decay(learning_rate=SGD),
        r"learning_rate=<GradientTransformationExtraArgs>: expected a finite number",
    ),
    "decay of None": (lambda: decay(None), r"weight_decay=None: expected a finite number of at least 0"),
    "tree to hold": (lambda: nk.constrain(SGD, hold=PARAMS), r"hold={'fc': {'kernel': <ndarray of shape \(4, 3\)>"),
    "injected limit": (
        lambda: jax.jit(lambda c: nk.constrain(SGD, max_norm=c).init(PARAMS))(1.0),
        r"max_norm=<float32 that jax traces>: expected a number that is known .*, name the argument in its static_a",
    ),
    "injected threshold": (
        lambda: jax.jit(lambda c: nk.proximal(SGD, l1=c, learning_rate=0.1).init(PARAMS))(1.0),
        r"l1=<float32 without a value yet>: expected .*; where optax\.inject_hyperparams makes it one, name",
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
        r"proximal: no coefficient above 0 among l1, group",
    ),
    "no rate to threshold": (lambda: nk.proximal(SGD, l1=0.1), r"learning_rate=None: .*: a threshold is lr times the"),
}

MODELS = {
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
    with pytest.raises(StateError, match=r"was given a tuple as its state"):
        made().project(PARAMS, SGD.init(PARAMS))
