"""Training steps that are not Keras' own: which step it is, and what is said where the optimizer does not tell."""

import keras
import numpy as np
import pytest

import normkit
import normkit.keras as nk
from keras_tiny import BACKEND, Witness, assert_seen, fit, fresh, net, own
from normkit.keras.count import Count
from normkit.keras.inside import is_plain


class Rarely(keras.Sequential):
    """Its `train_step` makes a step at each `each`-th batch only, as accumulating by hand does."""

    def train_step(self, *args):
        self.calls += 1
        if self.calls % self.each == 0:
            return super().train_step(*args)
        logs = {"loss": keras.ops.zeros(())}
        return (logs, args[0]) if BACKEND == "jax" else logs


def rarely(each, optimizer="sgd"):
    keras.utils.set_random_seed(7)
    model = Rarely(net().layers)
    model.each, model.calls = each, 0
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


@pytest.mark.parametrize("what", [("weight",), ("weight", "grad")], ids=len)
def test_a_batch_that_makes_no_step_is_none(tmp_path, what):
    model, witness = rarely(4), Witness()
    ours = nk.record(tmp_path / "run.norms", every=1, what=what, quiet=True)
    fit(model, [witness, ours])
    run = normkit.load(ours.path)
    assert run.steps.tolist() == [0, 1, 2, 3, 4]
    assert_seen(run, witness.seen)


@pytest.mark.parametrize("what", [("weight",), ("weight", "grad")], ids=len)
def test_an_optimizer_that_makes_no_step_is_not_the_one_that_trains(tmp_path, capsys, what):
    model, ours = rarely(99), nk.record(tmp_path / "run.norms", every=4, what=what)
    for _ in range(2):
        fit(model, [ours])
    run = normkit.load(ours.path)
    assert run.steps.tolist() == [0, 8, 12, 16, 20, 24, 28, 32]
    said = (
        "SGD, which the model was compiled with, made no step in this epoch: others train, or nothing does; each batch"
    )
    assert capsys.readouterr().err.count(said) == 1
    assert [event.kind for event in run.events if said in event.text] == ["optimizer"]
    assert run.meta["optimizers"] == []
    assert "lr" not in run.scalar_names


def test_batches_that_nobody_counts():
    model, count = fresh(), Count(fresh(), {})
    assert [count.ended(model), count.unit, count.idle] == [1, "epoch", True]
    assert Count(model, {"steps": 8}, earlier=count).idle
    assert not Count(rarely(2), {"steps": 8}, earlier=count).idle


def test_counting_may_begin_in_an_epoch():
    model = fresh()
    model.optimizer._iterations.assign(1)
    assert Count(model, {"steps": 8}, batch=1).before(2, lambda: model) == 2


def test_a_train_step_of_the_instance(tmp_path):
    model, witness = own(), Witness()
    plain = model.train_step

    def twice(*args):
        logs = plain(*args)
        return plain(logs[1], *args[1:]) if BACKEND == "jax" else plain(*args)

    model.train_step = twice
    ours = nk.record(tmp_path / "run.norms", every=4, quiet=True)
    fit(model, [witness, ours])
    run = normkit.load(ours.path)
    assert run.steps.tolist() == [*range(0, 33, 4)]
    assert_seen(run, witness.seen)


class Maker(keras.Sequential):
    def make_train_function(self, force=False):
        return super().make_train_function(force)


class Applier(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        return super().apply(grads, trainable_variables)


@pytest.mark.parametrize(
    ("model", "optimizer", "plain"), [(Maker, "sgd", False), (keras.Sequential, Applier(), False), (net, "adam", True)]
)
def test_what_is_not_keras_own_is_seen(model, optimizer, plain):
    made = model()
    made.compile(optimizer, "mse")
    assert is_plain(made) == plain
    made.optimizer.apply = lambda grads, variables=None: None
    assert not is_plain(made)


def test_rates_of_an_optimizer_that_may_not_train_wait_until_it_has(tmp_path):
    ours = nk.record(tmp_path / "run.norms", every=1, quiet=True)
    fit(rarely(4), [ours], epochs=1)
    np.testing.assert_allclose(normkit.load(ours.path).scalar("lr"), [np.nan, 0.01, 0.01])
