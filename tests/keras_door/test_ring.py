"""The ring beside the optimizer: what it says of every step, against the weights and gradients taken one by one."""

from __future__ import annotations

import zipfile

import keras
import numpy as np
import pytest

from keras_tiny import only_on
from keras_witness import (
    ALL,
    BACKEND,
    Spy,
    Witness,
    assert_column,
    assert_equal,
    assert_right,
    fitted,
    multi,
    small_model,
    tokens,
    values_of,
)
from reference import sums


def test_a_column_can_be_found_wrong():
    right = sums(np.array([1.0, 2.0]))
    assert_column(list(right.values()), right)
    with pytest.raises(AssertionError):
        assert_column([3.0, 3.0, 5.1, 2.0, 0, 0], right)
    with pytest.raises(AssertionError):
        assert_column([3.0, 3.0, 5.0, 2.0, 0, 0], None)


SETTINGS = {
    "clipped, decayed": lambda: Spy(0.1, momentum=0.9, clipnorm=0.05, weight_decay=0.1),
    "clipped, accumulated": lambda: Spy(0.1, gradient_accumulation_steps=2, global_clipnorm=0.1, weight_decay=0.1),
    "averaged, scaled": lambda: Spy(0.1, use_ema=True, ema_overwrite_frequency=3, loss_scale_factor=64.0),
    "several, scaled by need": lambda: keras.optimizers.LossScaleOptimizer(multi(), initial_scale=64.0),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_step_is_right(setting):
    divided = BACKEND == "tensorflow" and setting == "averaged, scaled"  # Keras cannot divide an embedding's gradient
    model, witness = small_model(embedding=not divided), Witness()
    by_xla = BACKEND == "tensorflow" and setting.startswith("clipped")  # which takes its time
    model.compile(SETTINGS[setting](), "mse", jit_compile=BACKEND == "jax" or by_xla)
    inputs, targets = tokens()
    model.fit(inputs, targets, batch_size=8, epochs=2, verbose=0, callbacks=[witness])
    steps = 6 if "accumulated" in setting else 12
    assert [step for step, _ in witness.taken] == list(range(1, steps + 1))
    assert_right(witness)


@only_on("jax", "tensorflow")  # Keras on torch makes one step per execution
def test_every_step_of_an_execution_is_right():
    alone, four = Witness(), Witness()
    model = fitted(small_model(), alone, optimizer=Spy(0.1))
    again = fitted(small_model(), four, optimizer=Spy(0.1), steps_per_execution=4)
    assert_equal(values_of(model), values_of(again))
    assert [step for step, _ in four.taken] == [1, 2, 3, 4, 5, 6]
    assert sorted(four.seen) == [0, 4, 6]  # which is all that a callback sees
    assert_same_sums(four.taken, alone.taken)


def assert_same_sums(mine, other):
    for (step, values), (same, expected) in zip(mine, other, strict=True):
        assert step == same
        for name in ALL:
            present = ~np.isnan(values[name])
            np.testing.assert_allclose(values[name][present], expected[name][present], rtol=1e-9, atol=1e-12)


def test_a_fit_of_a_compiled_model_is_recorded_and_leaves_no_trace():
    plain = fitted(fitted(fitted(small_model(), optimizer="adam")))
    model = fitted(small_model(), optimizer="adam")
    function, count, methods = model.train_function, len(model.optimizer.variables), set(vars(model.optimizer))
    first, second = Witness(what=("update", "weight")), Witness(what=("grad", "weight"))  # as many numbers in each
    fitted(model, first)
    assert model.train_function is function
    assert (len(model.optimizer.variables), set(vars(model.optimizer))) == (count, methods)
    fitted(model, second)
    assert_equal(values_of(model), values_of(plain))
    assert_equal(values_of(model.optimizer), values_of(plain.optimizer))
    assert [step for step, _ in first.taken] == [7, 8, 9, 10, 11, 12]
    for (_, measured), name in ((first.taken[-1], "update"), (second.taken[-1], "grad")):
        assert list(measured) == ["weight", name]
    kernel = [item.param.role for item in first.located].index("embedding")
    old, new, _ = first.seen[12]
    assert_column(first.taken[-1][1]["update"][:, kernel], sums(new[kernel] - old[kernel], old[kernel]))
    assert second.taken[-1][1]["grad"][2, kernel] > 1e3 * first.taken[-1][1]["update"][2, kernel]


def rounded(what):
    """A fit in which a gradient read as it is would be rounded otherwise: one number scales all of them."""
    keras.utils.set_random_seed(3)
    here = keras.Input((6,))
    inner = keras.layers.BatchNormalization()(keras.layers.Dense(6, activation="tanh")(here))
    model = keras.Model(here, keras.layers.Dense(1)(keras.layers.Dense(4)(keras.layers.Dense(4)(inner))))
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.1), "mse")
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(64, 6)).astype("float32"), rng.normal(size=(64, 1)).astype("float32")
    model.fit(inputs, targets, batch_size=8, epochs=2, verbose=0, callbacks=[Witness(what=what)] if what else [])
    return [*values_of(model), *values_of(model.optimizer)]


@only_on("jax", "torch")  # TensorFlow's own graph optimizer rounds otherwise what is read twice
def test_reading_gradients_rounds_no_weight_otherwise():
    assert_equal(rounded(ALL), rounded(None))


def test_a_model_saved_in_mid_training_is_without_the_ring(tmp_path):
    witness = Witness()

    class Saver(keras.callbacks.ModelCheckpoint):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            self.state = values_of(self.model), values_of(self.model.optimizer)[: self.own]

    saver = Saver(tmp_path / "saved.keras", save_freq=6)
    model = small_model()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    saver.own = len(model.optimizer.variables)
    fitted(model, witness, saver)
    loaded = keras.models.load_model(tmp_path / "saved.keras")  # a warning would be an error
    assert_equal(values_of(loaded), saver.state[0])
    assert_equal(values_of(loaded.optimizer), saver.state[1])
    assert "normkit" not in str(zipfile.ZipFile(tmp_path / "saved.keras").read("config.json"))
    assert_right_weights(witness)


def assert_right_weights(witness):
    step, values = witness.taken[-1]
    for column, new in enumerate(witness.seen[step][1]):
        assert_column(values["weight"][:, column], sums(new))


class Choosy(Witness):
    """Wants some steps of each epoch."""

    def __init__(self, wanted, **options):
        super().__init__(**options)
        self.wanted, self.left = wanted, []

    def on_epoch_begin(self, epoch, logs=None):
        assert self.model is not None
        self.left.append(self.ring.want(self.wanted[epoch], **({"newest": True} if epoch else {})))


def test_wanted_steps_are_kept_and_the_oldest_where_there_are_too_many():
    witness = Choosy([[2, 5, 40], [1, 8, 7, 9, 10]], depth=2)
    fitted(small_model(), witness, epochs=2, optimizer="sgd")
    assert [step for step, _ in witness.taken] == [2, 5, 7, 8, 12]  # the last is the newest
    assert witness.left == [1, 2]
    step, values = witness.taken[-1]
    for column, new in enumerate(witness.seen[step][1]):
        assert_column(values["weight"][:, column], sums(new))
