"""`nk.record()` in `fit`: the right weights at the right steps, nothing else touched, nothing waited for."""

import csv
import functools
import importlib
import threading

import keras
import numpy as np
import pytest

import normkit
import normkit.keras as nk
from keras_tiny import BACKEND, STRIDES, Changer, Witness, assert_seen, fit, fresh, net, own
from normkit.keras.describe import described
from normkit.keras.walk import walk
from normkit.types import Every

NAMES = (
    "dense.kernel",
    "dense.bias",
    "batch_normalization.gamma",
    "batch_normalization.beta",
    "dense_1.kernel",
    "dense_1.bias",
)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "run.norms"


def recorded(place, callbacks=lambda ours: [ours], *, model=None, epochs=2, **asked):
    model = model or fresh()
    history = fit(model, callbacks(nk.record(place, quiet=True, **asked)), epochs=epochs)
    return normkit.load(place), model, history


def test_a_wrong_weight_is_noticed(place):
    witness = Witness()
    run, *_ = recorded(place, lambda ours: [witness, ours], every=1)
    assert_seen(run, witness.seen)
    witness.seen[3][0][0, 0] += 1e-6
    with pytest.raises(AssertionError):
        assert_seen(run, witness.seen)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("before", [[], [Changer]], ids=["", "weights changed by a callback before"])
@pytest.mark.parametrize("every", [1, 5, Every(3, first=10)], ids=str)
def test_every_record_is_of_its_step(place, every, before, stride):
    witness = Witness()
    run, *_ = recorded(
        place,
        lambda ours: [*(each() for each in before), witness, ours],
        model=fresh(stride),
        every=every,
        epochs=8,
    )
    assert run.tensors == NAMES
    assert_seen(run, witness.seen)
    rule = nk.record(every=every)._terms.schedule()
    due = {step for step in range(1, 65) if rule.samples(step)}
    seen_at = range(stride, 65, stride)
    expected = [step for step in seen_at if due & {*range(step - stride + 1, step + 1)}]
    assert run.steps.tolist() == sorted({0, 64, *expected})


@pytest.mark.parametrize("every", [1, Every(epochs=1)], ids=str)
def test_the_callback_alone_sees_the_same(tmp_path, every):
    alone, *_ = recorded(tmp_path / "alone.norms", lambda ours: ours, every=every, epochs=8)
    listed, *_ = recorded(tmp_path / "listed.norms", every=every, epochs=8)
    assert alone.steps.tolist() == listed.steps.tolist()
    for step in alone.steps:
        np.testing.assert_array_equal(alone.reading(step).values["weight"], listed.reading(step).values["weight"])


def test_another_thread_ends_the_recording_and_not_the_training(place):
    model, ours = fresh(), nk.record(place, every=1, quiet=True)

    class Threaded(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            thread = threading.Thread(target=ours.on_train_batch_begin, args=(batch,))
            thread.start()
            thread.join()

    with pytest.warns(RuntimeWarning, match="Keras called the recorder from another thread"):
        fit(model, [ours, Threaded()])


def test_each_epoch_is_the_default(place):
    witness = Witness()
    run, _, _ = recorded(place, lambda ours: [witness, ours], epochs=3)
    assert run.steps.tolist() == [0, 8, 16, 24]
    np.testing.assert_array_equal(run.epochs, [np.nan, 1, 2, 3])
    assert_seen(run, witness.seen)


def test_logs_and_scalars(place, tmp_path):
    table = tmp_path / "logs.csv"
    run, model, history = recorded(place, lambda ours: [ours, keras.callbacks.CSVLogger(table)], epochs=3)
    assert [*history.history] == ["loss", "weight_l2", "weight_linf"]
    np.testing.assert_allclose(run.scalar("loss")[1:], history.history["loss"], rtol=1e-6)
    np.testing.assert_allclose(run.scalar("lr"), 0.01, rtol=1e-6)
    whole = [np.sqrt(run.reading(step).values["weight"][2].sum()) for step in run.steps]
    np.testing.assert_allclose(history.history["weight_l2"], whole[1:], rtol=1e-12)
    with table.open() as file:
        np.testing.assert_allclose([float(row["weight_l2"]) for row in csv.DictReader(file)], whole[1:], rtol=1e-6)
    assert nk.norms(model)["dense.kernel"] == run.series("dense.kernel")[-1]


def test_the_rate_is_the_one_that_the_step_used(place):
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.4, 0.2, 0.1])
    run, *_ = recorded(place, every=1, model=own(None, keras.optimizers.SGD(schedule)), epochs=1)
    np.testing.assert_allclose(run.scalar("lr"), [0.4, 0.4, 0.4, 0.2, 0.2, *[0.1] * 4], rtol=1e-6)
    assert run.meta["optimizers"][0]["groups"][0]["lr"] == 0.4


def test_a_rate_lowered_at_an_epochs_end_counts_from_the_next(place):
    lower = keras.callbacks.ReduceLROnPlateau("loss", patience=0, factor=0.1, min_delta=1e9, min_lr=0.0)
    run, *_ = recorded(place, lambda ours: [lower, ours], model=own(None, keras.optimizers.SGD(0.1)), epochs=3)
    np.testing.assert_allclose(run.scalar("lr"), [0.1, 0.1, 0.1, 0.01], rtol=1e-5)


def test_what_the_file_says_of_the_run(place):
    run, *_ = recorded(place, epochs=1)
    backend = importlib.import_module(BACKEND)
    assert run.meta["framework"] == f"keras {keras.__version__}, {BACKEND} {backend.__version__}"
    assert run.meta["path_of_sums"] == "cpu: compiled kernel, float64"
    assert run.meta["end"] == "finished"


def test_what_is_said_of_the_optimizer():
    model = own(None, keras.optimizers.AdamW(0.01, weight_decay=0.1))
    model.optimizer.build(model.trainable_variables)
    (optimizer,) = described(model, walk(model))["optimizers"]
    (group,) = optimizer["groups"]
    assert (optimizer["name"], group["lr"], group["weight_decay"]) == ("AdamW", 0.01, 0.1)
    assert group["params"] == list(NAMES)


def test_what_does_not_decay_is_a_group_of_its_own():
    model = own(None, keras.optimizers.AdamW(0.01, weight_decay=0.1))
    model.optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.optimizer.build(model.trainable_variables)
    decayed, spared = described(model, walk(model))["optimizers"][0]["groups"]
    assert spared["weight_decay"] == 0.0
    assert spared["params"] == ["dense.bias", "dense_1.bias"]
    assert "dense.kernel" in decayed["params"]


def test_gradient_accumulation_makes_one_step_of_two_batches(place):
    witness = Witness()
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    run, *_ = recorded(place, lambda ours: [witness, ours], every=1, model=own(None, optimizer))
    assert run.steps.tolist() == list(range(9))
    assert_seen(run, witness.seen)


class Twice(keras.Model):
    """A model whose own `train_step` makes two optimizer steps."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.build((None, 3))

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, *args):
        if BACKEND == "jax":
            _, state = super().train_step(*args)
            return super().train_step(state, *args[1:])
        super().train_step(*args)
        return super().train_step(*args)


@pytest.mark.filterwarnings("ignore:.build... was called on layer")
def test_a_train_step_of_ones_own_is_counted_by_its_optimizer(place):
    witness = Witness()
    run, *_ = recorded(place, lambda ours: [witness, ours], model=own(Twice()), every=4)
    assert run.steps.tolist() == [*range(0, 33, 4)]
    assert_seen(run, witness.seen)


def test_dynamic_loss_scaling_makes_no_step_of_what_it_skips(place):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1e38)
    witness = Witness()
    run, *_ = recorded(place, lambda ours: [witness, ours], every=1, model=own(None, optimizer))
    assert 0 < run.steps[-1] < 16
    assert run.meta["steps"] == run.steps[-1]
    assert_seen(run, witness.seen)


ASKED = {
    "each epoch": {},
    "each step": {"every": 1},
    "gradients": {"every": 2, "what": ("weight", "grad", "update")},
}


@functools.cache
def without():
    model = fresh()
    fit(model)
    return model.get_weights()


@pytest.mark.parametrize("asked", ASKED)
def test_training_is_bit_for_bit_what_it_is_without(place, asked):
    _, model, _ = recorded(place, **ASKED[asked])
    for ours, plain in zip(model.get_weights(), without(), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_a_model_that_is_not_built_has_its_first_weights_too(place):
    keras.utils.set_random_seed(7)
    models = [net(built=False) for _ in range(2)]
    histories = []
    for model, callbacks in zip(models, [[nk.record(place, quiet=True)], []], strict=True):
        keras.utils.set_random_seed(7)
        model.compile("sgd", "mse")
        histories.append(fit(model, callbacks))
    run = normkit.load(place)
    assert run.steps.tolist() == [0, 8, 16]
    assert run.tensors == NAMES
    assert run.series("dense.bias")[0] == 0.0


def test_gradients_of_every_step(place):
    run, *_ = recorded(place, every=1, what=("weight", "grad", "update"), epochs=3)
    assert run.steps.tolist() == list(range(25))
    change = np.diff(run.series("dense.kernel"))
    assert np.all(np.abs(change) <= run.series("dense.kernel", quantity="update")[1:] + 1e-6)
    np.testing.assert_allclose(  # plain gradient descent
        run.series("dense_1.bias", quantity="update")[1:],
        0.01 * run.series("dense_1.bias", quantity="grad")[1:],
        rtol=1e-4,
    )


def test_gradients_of_the_last_step_of_each_epoch(place):
    run, _, history = recorded(place, what=("weight", "grad"), epochs=3)
    assert run.steps.tolist() == [0, 8, 16, 24]
    np.testing.assert_array_equal(run.epochs, [np.nan, 1, 2, 3])
    assert np.isfinite(run.series("dense.kernel", quantity="grad")[1:]).all()
    assert len(history.history["grad_l2"]) == 3
    np.testing.assert_allclose(run.scalar("loss")[1:], history.history["loss"], rtol=1e-6)


# --- no hook, no wait -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("every", [1, Every(epochs=1)], ids=str)
def test_keras_need_not_wait_for_the_end_of_a_batch(every, alone):
    ours = nk.record(every=every)
    callbacks = keras.callbacks.CallbackList(ours if alone else [ours])
    assert callbacks._async_train == (BACKEND != "tensorflow")
    is_default = keras.src.utils.is_default
    assert is_default(ours.on_train_batch_end)
    assert is_default(ours.on_batch_end)
    assert is_default(ours.on_train_batch_begin) == isinstance(every, Every)


if BACKEND == "jax":  # only there the state is away from the model

    @pytest.mark.parametrize(("every", "more"), [(Every(epochs=1), 0), (4, 2)], ids=str)
    def test_the_state_is_attached_only_for_a_record(place, monkeypatch, every, more):
        """Of 8 batches more an epoch, only the records that fall into them cost an attachment."""
        calls = []
        plain = keras.Model.jax_state_sync
        monkeypatch.setattr(keras.Model, "jax_state_sync", lambda self: (calls.append(self), plain(self))[1])
        counts = []
        for rows in (64, 128):
            calls.clear()
            fit(fresh(), [nk.record(place.with_name(f"{rows}.norms"), every=every, quiet=True)], epochs=1, rows=rows)
            counts.append(len(calls))
        assert counts[1] - counts[0] <= 2 * more
        assert (counts[1] - counts[0] == 0) == (more == 0)
