"""The ring where training is unusual: no gradient, skipped steps, interruptions, and Keras as it is not."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from keras_tiny import only_on
from keras_witness import ALL, BACKEND, Spy, Witness, assert_column, assert_right, fitted, number, small_model, tokens
from normkit.errors import ArgumentError, ModelError, StateError
from normkit.keras.ring import Ring
from normkit.keras.ring_hooks import private_api_missing
from normkit.keras.walk import walk
from reference import sums


def ring_of(model, what=ALL, depth=8):
    ring = Ring(model, walk(model), what, depth)
    ring.attach()
    return ring


def two_weights(optimizer):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)])
    model.compile(optimizer, "mse")
    return model


def tensors(*values):
    return [keras.ops.convert_to_tensor(np.array(value, "float32")) for value in values]


def test_a_tensor_without_gradient_has_none_and_no_update():
    model = two_weights("sgd")
    ring = ring_of(model)
    (gradient,) = tensors([[1.0, -2.0], [0.0, math.nan]])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        model.optimizer.apply([gradient, None], model.trainable_variables)
    ((step, values),) = ring.take()
    assert step == 1
    assert np.isnan(values["grad"][:, 1]).all()
    assert values["update"][2, 1] == 0
    assert values["grad"][4:6, 0].tolist() == [1, 1]  # a zero, and the NaN is counted
    assert math.isnan(values["grad"][2, 0])


def test_a_weight_that_is_overwritten_with_its_gradient_has_none_but_an_update():
    model = two_weights("sgd")
    bias = model.trainable_variables[1]
    bias.overwrite_with_gradient = True
    ring = ring_of(model)
    model.optimizer.apply(tensors(np.ones((2, 2)), [3.0, 4.0]), model.trainable_variables)
    ((_, values),) = ring.take()
    assert np.isnan(values["grad"][:, 1]).all()
    assert_column(values["update"][:, 1], sums([3.0, 4.0], [0.0, 0.0]))


def test_a_step_that_loss_scaling_skips_is_none():
    model = two_weights(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=4.0))
    ring = ring_of(model)
    kernel = number(model.trainable_variables[0])
    for value in (math.inf, 2.0):
        apply(model, tensors(np.full((2, 2), value), [value, value]))
    ((step, values),) = ring.take()
    assert step == 1
    assert_column(values["grad"][:, 0], sums(np.full((2, 2), 2.0 / 2.0), kernel))  # the scale was halved


def apply(model, gradients):
    """One call of the optimizer; on JAX the training step hands its state through."""
    optimizer = model.optimizer
    if BACKEND != "jax":
        optimizer.apply(gradients, model.trainable_variables)
        return
    state = [variable.value for variable in optimizer.variables]
    weights = [variable.value for variable in model.trainable_variables]
    weights, state = optimizer.stateless_apply(state, gradients, weights)
    variables = [*model.trainable_variables, *optimizer.variables]
    for variable, value in zip(variables, [*weights, *state], strict=True):
        variable.assign(value)


def test_a_custom_loop_by_single_batches_is_recorded():
    model, (inputs, targets) = small_model(), tokens()
    model.compile("adam", "mse", run_eagerly=BACKEND != "jax")
    ring = ring_of(model, depth=3)
    before = [number(item.variable) for item in walk(model)]
    for batch in range(2):
        model.train_on_batch(inputs[8 * batch : 8 * batch + 8], targets[8 * batch : 8 * batch + 8])
    found = ring.take()
    assert [step for step, _ in found] == [1, 2]
    for column, item in enumerate(walk(model)):
        now = number(item.variable)
        if item.param.role != "buffer":
            assert_column(found[1][1]["weight"][:, column], sums(now))
        if item.param.trainable:
            together = found[0][1]["update"][0, column] + found[1][1]["update"][0, column]
            assert together == pytest.approx(float((now - before[column]).sum()), abs=1e-6)
    ring.detach()


def test_mixed_precision_is_measured_unscaled():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = two_weights(Spy(0.5))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    ring = ring_of(model)
    model.train_on_batch(np.ones((2, 2), "float32"), np.zeros((2, 2), "float32"))
    ((_, values),) = ring.take()
    seen = [number(variable) for variable in model.optimizer.inner_optimizer.seen]
    for column, gradient in enumerate(seen):
        assert np.abs(gradient).max() < 100
        assert values["grad"][2, column] == pytest.approx(float((gradient**2).sum()), rel=1e-12)


class Stops(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise KeyboardInterrupt


def test_a_ring_that_an_interrupted_fit_left_behind_makes_room():
    model, lost, witness = small_model(), Witness(), Witness()
    with pytest.raises(KeyboardInterrupt):
        fitted(model, lost, Stops(), optimizer=Spy(0.1))
    fitted(model, witness)
    assert [step for step, _ in witness.taken] == [5, 6, 7, 8, 9, 10]
    assert_right(witness)
    with pytest.raises(
        StateError, match=r"^another recorder of gradients has taken the place of this one on the model's Spy: give"
    ):
        lost.ring.take()
    assert "apply" not in vars(model.optimizer)


def test_training_goes_on_where_measuring_fails(monkeypatch):
    model = two_weights("sgd")
    ring = ring_of(model)
    monkeypatch.setattr(ring._slots, "after", lambda: 1 / 0)
    model.optimizer.apply(tensors(np.ones((2, 2)), [3.0, 4.0]), model.trainable_variables)
    assert number(model.optimizer._iterations) == 1
    with pytest.raises(StateError, match=r"could not be measured in the training step \(ZeroDivisionError: "):
        ring.take()


class Own(keras.optimizers.SGD):
    """An optimizer that does all by itself."""

    def _backend_apply_gradients(self, grads, trainable_variables):
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            variable.assign(variable - gradient)


def test_an_optimizer_that_goes_its_own_way_is_told_of():
    model = two_weights(Own(0.1))
    ring = ring_of(model)
    model.optimizer.apply(tensors(np.ones((2, 2)), [3.0, 4.0]), model.trainable_variables)
    with pytest.raises(StateError, match=r"\(Own.apply does not call _backend_update_step\)"):
        ring.take()


@pytest.mark.parametrize(
    ("what", "depth", "sentence"),
    [
        (("weights",), 4, r"what=\('weights',\): expected some of weight, grad, update"),
        ((), 4, r"what=\(\): expected some of weight"),
        (ALL, 0, r"depth=0: expected 1 to 209714 steps of 2 tensors"),
        (ALL, 10**9, r"depth=1000000000: expected 1 to 209714 steps of 2 tensors, which take 64 MB"),
    ],
)
def test_a_ring_of_nothing_is_refused(what, depth, sentence):
    model = two_weights("sgd")
    with pytest.raises(ArgumentError, match=sentence):
        Ring(model, walk(model), what, depth)


def accumulated():
    leaf = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(leaf))


@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        (None, r"this model has no optimizer: call model.compile\(optimizer=...\), or record what=\(.weight.,\) only"),
        (accumulated, r"in a MultiOptimizer has gradient_accumulation_steps=2, so that its updates are not"),
    ],
)
def test_what_cannot_be_watched_is_refused(optimizer, sentence):
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)])
    model.optimizer = None
    if optimizer is not None:
        model.compile(optimizer(), "mse")
    with pytest.raises(ModelError, match=sentence):
        ring_of(model)


@only_on("torch")
def test_a_step_compiled_by_torch_is_refused():
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.raises(ModelError, match=r"this model has jit_compile=True: compile it with jit_compile=False, or"):
        ring_of(model)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "Nadam", "LossScaleOptimizer", "MultiOptimizer"])
def test_keras_inside_is_as_the_ring_knows_it(kind):
    """Fails on the day that Keras renames, or calls otherwise, what the ring needs: change `ring_hooks` then."""
    sgd = keras.optimizers.SGD()
    made = {
        "LossScaleOptimizer": lambda: keras.optimizers.LossScaleOptimizer(sgd),
        "MultiOptimizer": lambda: keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(sgd)),
    }
    optimizer = made.get(kind, getattr(keras.optimizers, kind))()
    assert private_api_missing(two_weights("sgd"), optimizer) == []


def test_another_keras_is_refused_in_a_sentence(monkeypatch):
    model = two_weights("adam")
    kind = next(kind for kind in type(model.optimizer).__mro__ if "_backend_update_step" in vars(kind))

    def renamed(self, gradients, weights):
        raise NotImplementedError

    renamed.__module__ = "keras.src.optimizers"
    monkeypatch.setattr(kind, "_backend_update_step", renamed)
    sentence = r"need Adam._backend_update_step\(grads, trainable_variables, learning_rate\), which Keras [\d.]+ does"
    with pytest.raises(ModelError, match=sentence):
        ring_of(model)
