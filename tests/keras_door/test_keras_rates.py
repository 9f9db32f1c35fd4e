"""A record has the learning rate that its step used, whoever has set it, and the optimizers are those that train."""

import keras
import numpy as np
import pytest

import normkit
import normkit.keras as nk
from keras_tiny import fit, fresh, net, own
from normkit.keras.describe import described
from normkit.keras.optimizers import optimizers_of
from normkit.keras.rates import MANY, Rates
from normkit.keras.walk import walk

ALL = ("weight", "grad", "update")


class Setter(keras.callbacks.Callback):
    """Gives every batch a rate of its own, before it or at the end of the one before."""

    def __init__(self, moment):
        super().__init__()
        self.moment = moment

    def on_train_batch_begin(self, batch, logs=None):
        if self.moment == "begin":
            self.set(batch + 1)

    def on_train_batch_end(self, batch, logs=None):
        if self.moment == "end":
            self.set(batch + 2)

    def set(self, number):
        model = self.model
        model.optimizer.learning_rate = number / 100


@pytest.mark.parametrize(
    ("order", "what"),
    [("ours, begin", ALL[:1]), ("begin, ours", ALL[:1]), ("end, ours", ALL[:1]), ("ours, begin", ALL)],
    ids=str,
)
def test_a_rate_of_every_batch_is_that_batchs(tmp_path, order, what):
    model, ours = fresh(), nk.record(tmp_path / "run.norms", every=1, what=what, quiet=True)
    model.optimizer.learning_rate = 0.01
    fit(model, [ours if name == "ours" else Setter(name) for name in order.split(", ")], epochs=1)
    used = np.arange(1, 9) / 100
    np.testing.assert_allclose(normkit.load(ours.path).scalar("lr")[1:], used, rtol=1e-6)
    assert "assign" not in vars(model.optimizer._learning_rate)


@pytest.mark.parametrize("what", [ALL[:1], ALL], ids=len)
def test_under_accumulation_a_schedule_is_read_at_the_call_that_updates(tmp_path, what):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.4, 0.2, 0.1])
    model = own(None, keras.optimizers.SGD(schedule, gradient_accumulation_steps=2))
    ours = nk.record(tmp_path / "run.norms", every=1, what=what, quiet=True)
    fit(model, [ours], epochs=1)
    np.testing.assert_allclose(normkit.load(ours.path).scalar("lr")[1:], [0.4, 0.2, 0.1, 0.1], rtol=1e-6)


def compiled(optimizer):
    model = net()
    model.compile(optimizer, "mse")
    return model


def values(rates, round_):
    return {name: float(keras.ops.convert_to_numpy(value)) for name, value in rates.at(round_).items()}


def test_calls_are_told_apart_however_many_rates_there_were():
    model = compiled(keras.optimizers.SGD(0.5))
    rates, other = Rates(model), Rates(model)
    for call in range(1, MANY + 10):
        model.optimizer.iterations.assign(call)
        model.optimizer.learning_rate = call
    assert values(rates, 1) == {"lr": 0.5}
    assert values(rates, 3) == {"lr": 2.0}
    rates.detach()
    model.optimizer.learning_rate = 7.0
    assert values(other, MANY + 10) == {"lr": 7.0}
    assert values(rates, MANY + 10) == {"lr": MANY + 9.0}
    other.detach()
    assert "assign" not in vars(model.optimizer._learning_rate)


def test_several_optimizers_have_a_rate_each_and_a_function_none():
    several = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.5), {"dense/kernel": keras.optimizers.Adam(0.25)})
    assert sorted(values(Rates(compiled(keras.optimizers.MultiOptimizer(several))), 1).items()) == [
        ("lr", 0.25),
        ("optimizer1.lr", 0.5),
    ]
    model = compiled(keras.optimizers.SGD(lambda: 0.1))
    assert Rates(model).at(1) == {}
    assert described(model, walk(model))["optimizers"][0]["groups"][0]["schedule"] == "<lambda>"


class Pair(keras.Model):
    """As a GAN is usually written: it takes two optimizers, and leaves Keras' default where it is."""

    def __init__(self):
        super().__init__()
        self.one, self.other = keras.layers.Dense(2), keras.layers.Dense(2)
        for layer in (self.one, self.other):
            layer.build((None, 2))

    def compile(self, mine, yours):
        super().compile()
        self.mine, self.yours = mine, yours


class Mixed(Pair):
    def train_step(self, data):
        def use():
            return self.optimizer.apply, data

        return use()


def test_optimizers_of_ones_own_are_meant_and_not_keras_default():
    pair, mixed = Pair(), Mixed()
    for model in (pair, mixed):
        model.compile(keras.optimizers.Adam(0.25), keras.optimizers.SGD(0.5))
    names = [type(optimizer).__name__ for optimizer in optimizers_of(pair)]
    assert names == ["Adam", "SGD"]
    assert values(Rates(pair), 1) == {"lr": 0.25, "optimizer1.lr": 0.5}
    assert [type(optimizer).__name__ for optimizer in optimizers_of(mixed)] == ["RMSprop", "Adam", "SGD"]
    assert len(optimizers_of(mixed, idle=True)) == 2

    pair.mine.build(pair.one.trainable_variables)
    groups = [each["groups"][0]["params"] for each in described(pair, walk(pair), idle=True)["optimizers"]]
    assert groups[0] == ["dense.kernel", "dense.bias"]
    assert described(compiled("sgd"), [], idle=True)["optimizers"] == []
