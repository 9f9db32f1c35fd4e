"""Tiny Keras models and fits, and a callback that sees for itself what a recorder should have seen."""

import functools

import keras
import numpy as np
import pytest

from reference import sums

BACKEND = keras.backend.backend()
if BACKEND != "tensorflow":  # seeds and `save` bring TensorFlow in where it is installed, seconds in each process
    keras.src.utils.module_utils.tensorflow._available = False
STRIDES = [1] if BACKEND == "torch" else [1, 4]  # Keras on torch makes one step per execution


def only_on(*backends):
    """A test that means nothing on another backend is no test there: it is not collected, and nothing is skipped."""
    return lambda test: test if BACKEND in backends else None


def slow_on(*backends):
    """The mark `slow` on these backends; on another one a mark that says nothing."""
    return pytest.mark.slow if BACKEND in backends else pytest.mark.skipif(False, reason="")


def net(*, built=True, units=5):
    """Dense, BatchNormalization and Dropout: something to learn, something that moves by itself, and chance."""
    layers = [keras.layers.Dense(units), keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)]
    return keras.Sequential([*([keras.Input((3,))] if built else []), *layers, keras.layers.Dense(1)])


@functools.cache
def _kept(stride, optimizer):
    """A model whose training step is compiled once for all tests, and everything that it was at first."""
    model = net()
    model.compile(optimizer, "mse", **({} if stride == 1 else {"steps_per_execution": stride}))
    model.optimizer.build(model.trainable_variables)
    return model, [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in state_of(model)]


def state_of(model):
    """Every variable that a training changes."""
    return [*model.variables, *model.optimizer.variables]


def fresh(stride=1, optimizer="sgd"):
    """The same model in the same state, ready for `fit`, at each call."""
    keras.utils.set_random_seed(7)
    model, state = _kept(stride, optimizer)
    for variable, value in zip(state_of(model), state, strict=True):
        variable.assign(value)
    keras.utils.set_random_seed(7)
    return model


def own(model=None, optimizer="sgd"):
    """A model of its own, its training step compiled only where that is the quicker way."""
    keras.utils.set_random_seed(7)
    model = model or net()
    model.compile(optimizer, "mse", run_eagerly=BACKEND == "tensorflow")
    return model


def data(rows=64):
    rng = np.random.default_rng(3)
    return rng.normal(size=(rows, 3)).astype("float32"), rng.normal(size=(rows, 1)).astype("float32")


def fit(model, callbacks=None, *, epochs=2, rows=64, **kwargs):
    """Eight batches an epoch, unless told otherwise."""
    return model.fit(*data(rows), batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs)


class Witness(keras.callbacks.Callback):
    """Takes the trainable weights after every batch and at the start, by step; in the ordinary, slow way."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def on_train_begin(self, logs=None):
        self.look()

    def on_train_batch_end(self, batch, logs=None):
        self.look()

    def look(self):
        model = self.model
        step = int(model.optimizer.iterations)
        self.seen[step] = [np.array(keras.ops.convert_to_numpy(each.value)) for each in model.trainable_weights]


class Changer(keras.callbacks.Callback):
    """Pulls all weights towards zero after every third batch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch % 3 == 2:
            model = self.model
            for variable in model.trainable_weights:
                variable.assign(variable * 0.5)


class Stop(keras.callbacks.Callback):
    """Breaks training off as a user does, before the batch with this number."""

    def __init__(self, batch):
        super().__init__()
        self.at = batch

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.at:
            raise KeyboardInterrupt


def assert_seen(run, seen):
    """Every recorded step holds exactly the sums of the weights seen at that step."""
    for step in run.steps:
        recorded = run.reading(step).values["weight"][:6]
        for column, weight in enumerate(seen[int(step)]):
            np.testing.assert_allclose(recorded[:, column], list(sums(weight).values()), rtol=1e-12, atol=1e-13)
