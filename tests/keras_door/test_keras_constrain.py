"""`constrain` and `proximal` on Keras optimizers: within the limit after `fit`, and not a bit more the second time."""

import keras
import numpy as np
import pytest

import normkit.keras as nk
import pulled
from keras_pulled import PLAIN, QUICK, apply, array, flat, floats, problem
from keras_tiny import BACKEND, only_on, slow_on
from normkit.errors import ArgumentError, ModelError

layers = keras.layers
LIMITS = {  # how it is asked for, and what it gives in float64
    "max_norm": ({"max_norm": 1.0}, lambda w: pulled.max_norm(w, 1.0, (1,))),
    "unit_norm": ({"unit_norm": True}, lambda w: pulled.unit_norm(w, (1,))),
    "min_max_norm": ({"min_max_norm": (0.5, 2.0)}, lambda w: pulled.min_max_norm(w, (0.5, 2.0), (1,))),
    "hold": ({"hold": 3.0}, lambda w: pulled.hold(w, 3.0, (1,))),
    "initial": ({"hold": "initial"}, lambda w: pulled.hold(w, pulled.lengths(pulled.START, (1,)), (1,))),
    "spectral_cap": ({"spectral_cap": 1.5}, lambda w: pulled.spectral_cap(w, 1.5, (1,))),
    "whole": ({"max_norm": 2.0, "per": "tensor"}, lambda w: pulled.max_norm(w, 2.0, ())),
}


def limited(optimizer, model=None):
    for name, (asked, _) in LIMITS.items():
        optimizer = nk.constrain(optimizer, select=f"*.{name}", model=model, **{"per": 1, **asked})
    return optimizer


def net():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2, name="head")])


def fit(model, optimizer, **keywords):
    model.compile(optimizer, "mse", **keywords)
    model.fit(*flat(), batch_size=8, verbose=0)
    return model


def test_all_limits_in_a_step_are_the_oracles():
    with floats("float64"):
        model, layer = problem(LIMITS)
        optimizer = limited(keras.optimizers.SGD(0.5), model)
        variables = [getattr(layer, name) for name in LIMITS]
        apply(optimizer, variables, [pulled.loss_gradient(pulled.START)] * len(LIMITS))
        moved = pulled.START - 0.5 * pulled.loss_gradient(pulled.START)
        for name, variable in zip(LIMITS, variables, strict=True):
            np.testing.assert_allclose(array(variable), LIMITS[name][1](moved), rtol=1e-11, atol=1e-12, err_msg=name)
        before = [array(each) for each in variables]
        optimizer.project()
    assert all((array(each) == old).all() for each, old in zip(variables, before, strict=True))


WAYS = [{**PLAIN, "spectral_cap": False}, {**PLAIN, "spectral_cap": True}]
WAYS += [{"jit_compile": True, "spectral_cap": True}] * (BACKEND == "tensorflow")


@pytest.mark.parametrize("way", [WAYS[0], *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[1:])])
def test_limits_hold_after_fit_and_a_second_application_changes_no_bit(way):
    way = dict(way)
    head = {"spectral_cap": 0.2} if way.pop("spectral_cap") else {"max_norm": 0.2, "per": "tensor"}
    optimizer = nk.constrain(keras.optimizers.Adam(0.1), max_norm=0.5, select="!head.*")
    optimizer = nk.constrain(optimizer, select="head.*", **head)
    optimizer = nk.constrain(optimizer, unit_norm=True, per="tensor", select=["bias", "head.bias"])
    model = fit(net(), optimizer, **way)
    kernel, _, last, bias = (array(each).astype("float64") for each in model.trainable_variables)
    assert pulled.lengths(kernel, (1,)).max() <= 0.5
    reached = pulled.sigmas(last, (1,)).max() if "spectral_cap" in head else pulled.lengths(last).max()
    assert 0 < reached <= 0.2
    assert pulled.lengths(bias) == pytest.approx(1, rel=1e-6)
    before = model.get_weights()
    optimizer.project()
    assert all((one == other).all() for one, other in zip(model.get_weights(), before, strict=True))
    told = {row.name: row.why for row in optimizer.explain().rows if row.chosen}
    assert told["head.kernel"] == f"{next(iter(head))} 0.2: 'head.*', role kernel by default"


def test_weights_that_satisfy_it_are_not_touched():
    plain, held = (net() for _ in range(2))
    for model, optimizer in ((plain, sgd()), (held, nk.constrain(sgd(), max_norm=100.0, model=held))):
        variables = model.trainable_variables
        optimizer.build(variables)
        apply(optimizer, variables, [np.full(each.shape, 0.25) for each in variables])
    assert all((one == other).all() for one, other in zip(plain.get_weights(), held.get_weights(), strict=True))


def test_the_held_lengths_are_those_of_the_call_and_are_saved(tmp_path):
    model = net()
    lengths = pulled.lengths(array(model.layers[0].kernel), (1,))
    optimizer = nk.constrain(sgd(), hold="initial", model=model)
    for variable in model.trainable_variables:
        variable.assign(3 * array(variable))
    fit(model, optimizer, **QUICK)
    np.testing.assert_allclose(pulled.lengths(array(model.layers[0].kernel), (1,)), lengths, rtol=1e-6)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    loaded.layers[0].kernel.assign(np.ones((4, 3)))
    loaded.optimizer.project()
    np.testing.assert_allclose(pulled.lengths(array(loaded.layers[0].kernel), (1,)), lengths, rtol=1e-6)


@pytest.mark.slow
def test_averages_of_weights_are_within_the_limit_at_the_end():
    optimizer = nk.constrain(keras.optimizers.SGD(0.5, use_ema=True), unit_norm=True)
    kernel = array(fit(net(), optimizer).layers[0].kernel)
    np.testing.assert_allclose(pulled.lengths(kernel, (1,)), 1, rtol=1e-6)


@only_on("tensorflow", "jax")
@pytest.mark.slow
def test_several_steps_in_one_execution():
    model = fit(net(), nk.constrain(sgd(), max_norm=0.25), steps_per_execution=2)
    assert pulled.lengths(array(model.layers[0].kernel), (1,)).max() <= 0.25


@slow_on("jax")
def test_half_precision_weights_stay_within():
    layer = layers.Dense(3, dtype="float16")
    layer.build((None, 4))
    layer.kernel.assign(pulled.START)
    optimizer = nk.constrain(sgd(), max_norm=1.0, model=layer)
    apply(optimizer, [layer.kernel, layer.bias], [np.zeros((4, 3)), np.zeros(3)])
    assert pulled.lengths(array(layer.kernel), (1,)).max() <= 1
    assert str(array(layer.kernel).dtype) == "float16"


def test_weight_norm_is_limited_in_its_lengths():
    model = nk.weight_norm(net())
    optimizer = nk.constrain(sgd(), max_norm=0.25, model=model)
    variables = model.trainable_variables
    directions = array(model.layers[0].layer.kernel.v)
    apply(optimizer, variables, [np.zeros(each.shape) for each in variables])
    kernel = model.layers[0].layer.kernel
    np.testing.assert_allclose(pulled.lengths(array(kernel.worked_out()), (1,)), 0.25, rtol=1e-6)
    assert (array(kernel.v) == directions).all()
    with pytest.raises(ModelError, match=r"dense\.kernel is weight-normed with p=2 and one length per index"):
        nk.constrain(sgd(), max_norm=1.0, per="tensor", model=model)
    with pytest.raises(ModelError, match=r"spectral_cap 1: dense\.kernel of shape \(4, 3\) is weight-normed"):
        nk.constrain(sgd(), spectral_cap=1.0, model=model)
    with pytest.raises(ModelError, match=r"proximal l1 1: dense\.kernel of shape \(4, 3\) is weight-normed"):
        nk.proximal(sgd(), l1=1.0, model=model)
    sparse = nk.proximal(sgd(), group=1.0, model=model)
    apply(sparse, variables, [np.zeros(each.shape) for each in variables])
    np.testing.assert_allclose(array(kernel.g), np.maximum(0, 0.25 - 0.1 * 2), rtol=1e-5)  # 4 entries in a group


def test_proximal_makes_the_oracles_zeros():
    with floats("float64"):
        model, layer = problem(["l1", "group"])
        optimizer = nk.proximal(keras.optimizers.SGD(0.5), l1=1.0, select="*.l1", model=model)
        optimizer = nk.proximal(optimizer, group=1.0, per=1, select="*.group", model=model)
        apply(optimizer, [layer.l1, layer.group], [pulled.loss_gradient(pulled.START)] * 2)
    moved = pulled.START - 0.5 * pulled.loss_gradient(pulled.START)
    np.testing.assert_allclose(array(layer.l1), pulled.soft_threshold(moved, 0.5), rtol=1e-12)
    np.testing.assert_allclose(array(layer.group), pulled.group_threshold(moved, 0.5, (1,)), rtol=1e-12)
    assert (array(layer.l1) == 0).sum() >= 3


@slow_on("jax")
def test_functions_of_one_tensor():
    w = keras.ops.convert_to_tensor(pulled.START.astype("float32"))
    np.testing.assert_allclose(array(nk.soft_threshold(w, 0.5)), pulled.soft_threshold(pulled.START, 0.5), rtol=1e-6)
    np.testing.assert_allclose(array(nk.decayed(w, 0.5, lr=0.1)), 0.95 * pulled.START, rtol=1e-6)
    for name in (
        "coupled",
        "max_norm",
        "unit_norm",
        "min_max_norm",
        "hold",
        "spectral_cap",
        "group_threshold",
        "convert_decay",
    ):
        assert name in nk.__all__


def sgd(rate=0.1):
    return keras.optimizers.SGD(rate)


def zeros():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_initializer="zeros")])


WRONG = [
    (lambda: nk.constrain(sgd()), ArgumentError, "constrain takes one of max_norm, .* and was given none of them"),
    (
        lambda: nk.constrain(sgd(), max_norm=1.0, unit_norm=True),
        ArgumentError,
        "was given max_norm=1.0, unit_norm=True",
    ),
    (lambda: nk.constrain(sgd(), max_norm=-1.0), ArgumentError, "max_norm=-1.0: expected a length"),
    (lambda: nk.constrain(sgd(), max_norm=True), ArgumentError, "max_norm=True: expected a length"),
    (lambda: nk.constrain(sgd(), unit_norm=2.0), ArgumentError, "unit_norm=2.0: expected True"),
    (
        lambda: nk.constrain(sgd(), hold="now"),
        ArgumentError,
        "hold='now': expected a length, a finite number above 0, or 'initial'",
    ),
    (lambda: nk.constrain(sgd(), hold="initial", model=zeros()), ArgumentError, "has 2 groups of length 0"),
    (lambda: nk.constrain(sgd(), min_max_norm=2.0), ArgumentError, "expected two lengths"),
    (lambda: nk.constrain("sgd", max_norm=1.0), ArgumentError, "optimizer='sgd' is a name"),
    (lambda: nk.constrain(sgd(), max_norm=1.0, per=7, model=net()), ArgumentError, "has no axis 7"),
    (lambda: nk.constrain(sgd(), max_norm=1.0, select="*.bias", model=net()), ArgumentError, "add the role"),
    (lambda: nk.proximal(sgd()), ArgumentError, "proximal: no coefficient above 0 among l1, group"),
    (lambda: nk.proximal(sgd(), l1=-1), ArgumentError, "l1=-1: expected a finite number of at least 0"),
    (
        lambda: nk.constrain(
            sgd(),
            max_norm=1.0,
            model=keras.Sequential([keras.Input((4,)), layers.Dense(2, kernel_constraint="max_norm")]),
        ),
        ModelError,
        r"dense\.kernel has the constraint MaxNorm of its layer",
    ),
]


@pytest.mark.parametrize(("call", "kind", "sentence"), WRONG)
def test_what_users_type_wrong(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call()
