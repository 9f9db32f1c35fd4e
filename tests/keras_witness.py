"""A small Keras model, and a witness of its training: every weight and used gradient after each step.

Imported by the tests of the Keras door, which run once per backend.
"""

from __future__ import annotations

import keras
import numpy as np

from normkit.keras.ring import Ring
from normkit.keras.walk import walk
from reference import ROWS, sums

BACKEND = keras.backend.backend()
ALL = ("weight", "grad", "update")


class Spy(keras.optimizers.SGD):
    """SGD that keeps the gradients it is given, as variables of its own."""

    def build(self, variables):
        super().build(variables)
        self.seen = self.add_optimizer_variables(variables, "seen")

    def update_step(self, gradient, variable, learning_rate):
        seen = self.seen[self._get_variable_index(variable)]
        self.assign(seen, dense(gradient, variable))
        super().update_step(gradient, variable, learning_rate)


def dense(gradient, variable):
    """TensorFlow hands on the rows of an embedding that were looked up, one by one."""
    if BACKEND != "tensorflow" or not hasattr(gradient, "indices"):
        return gradient
    return keras.ops.segment_sum(gradient.values, gradient.indices, variable.shape[0])


def tokens(count=48):
    rng = np.random.default_rng(1)
    inputs = rng.integers(0, 5, size=(count, 3)).astype("int32")  # tokens come more than once in a batch
    return inputs, rng.normal(size=(count, 2)).astype("float32")


def small_model(*, embedding=True):
    keras.utils.set_random_seed(3)
    frozen = keras.layers.Dense(4, trainable=False)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((3,), dtype="int32"),
            *([layers.Embedding(7, 4), layers.Flatten()] if embedding else [layers.Dense(3)]),
            layers.Dense(4, activation="tanh", kernel_constraint=keras.constraints.MaxNorm(0.9)),
            layers.BatchNormalization(),
            frozen,
            layers.Dense(2),
        ]
    )


class Witness(keras.callbacks.Callback):
    """A ring, and beside it every weight and used gradient after each step."""

    def __init__(self, what=ALL, depth=32):
        super().__init__()
        self.what, self.depth = what, depth
        self.seen, self.latest, self.taken = {}, None, []

    def on_train_begin(self, logs=None):
        model = self.model
        self.located = walk(model)
        self.ring = Ring(model, self.located, self.what, self.depth)
        self.ring.attach()
        self.look()

    def on_train_batch_end(self, batch, logs=None):
        self.look()

    def on_epoch_end(self, epoch, logs=None):
        assert self.model is not None
        self.taken += self.ring.take()

    def on_train_end(self, logs=None):
        self.ring.detach()

    def look(self):
        """After a batch: the weights before and after it, and its gradients, where it made a step."""
        inner = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        now = [number(item.variable) for item in self.located]
        if (step := self.ring.step) not in self.seen:
            spies = [leaf for leaf in getattr(inner, "optimizers", [inner]) if isinstance(leaf, Spy)]
            self.seen[step] = self.latest, now, [self.used(item.variable, spies) for item in self.located]
        self.latest = now

    def used(self, variable, spies):
        for spy in spies:
            for trained, seen in zip(spy._trainable_variables, spy.seen, strict=True):
                if trained is variable:
                    return number(seen)
        return None


def number(variable):
    value = variable.value.detach() if BACKEND == "torch" else variable.value
    return np.asarray(value).astype(np.float64)


def assert_right(witness):
    """Every recorded step, against what was seen after it and before."""
    assert witness.taken
    for step, values in witness.taken:
        for column, item in enumerate(witness.located):
            old, new, used = (each[column] for each in witness.seen[step])
            trained = item.param.trainable
            weight, grad, update = (values[name][:, column] for name in ALL)
            if item.param.role == "buffer" and BACKEND == "jax" and np.isnan(weight).all():
                assert step < max(witness.seen)
            else:
                assert_column(weight, sums(new))
            assert_column(update, sums(new - old, old) if trained else None)
            summed = BACKEND == "tensorflow" and item.param.role == "embedding"  # by us in float64, by Spy not
            assert_column(grad, None if used is None else sums(used, old), relative=1e-5 if summed else 1e-12)


def assert_column(column, expected, relative=1e-12):
    if expected is None:
        assert np.isnan(column).all()
        return
    for name, value in zip(ROWS, column, strict=False):
        scale = expected["abs"] if name == "sum" else abs(expected[name])
        if name == "dot":
            scale = max(scale, 1e-3 * expected["abs"])
        assert abs(value - expected[name]) <= relative * scale, (name, value, expected[name])


def multi():
    choice = keras.optimizers.OptimizerMap(Spy(0.1), {".*embedding.*": Spy(0.02, momentum=0.9)})
    return keras.optimizers.MultiOptimizer(choice)


def fitted(model, *callbacks, epochs=1, optimizer=None, **options):
    if optimizer is not None:
        model.compile(optimizer, "mse", **{"jit_compile": BACKEND == "jax"} | options)  # XLA takes its time elsewhere
    inputs, targets = tokens()
    model.fit(inputs, targets, batch_size=8, epochs=epochs, verbose=0, shuffle=False, callbacks=list(callbacks))
    return model


def values_of(thing):
    return [number(variable) for variable in thing.variables]


def assert_equal(mine, other):
    assert len(mine) == len(other)
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_array_equal(a, b)
