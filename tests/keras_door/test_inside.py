"""What the door needs from inside Keras is there, and is what it was: fails on the day that Keras changes it."""

import inspect

import keras
import numpy as np
import pytest

from keras_tiny import BACKEND, data, fresh, net
from normkit.keras import inside


def test_children_and_weights():
    model = net()
    kinds = [type(child).__name__ for child in inside.children_of(model)]
    assert [kind for kind in kinds if kind != "InputLayer"] == ["Dense", "BatchNormalization", "Dropout", "Dense"]
    norm = next(child for child in model.layers if isinstance(child, keras.layers.BatchNormalization))
    assert [(variable.name, learned) for variable, learned in inside.weights_of(norm)] == [
        ("gamma", True),
        ("beta", True),
        ("moving_mean", False),
        ("moving_variance", False),
    ]


def test_keras_counts_the_names_it_makes_up():
    made = inside.names_made("re_lu")
    names = [keras.layers.ReLU().name, keras.layers.ReLU(name="re_lu_77").name, keras.layers.ReLU().name]
    assert names == [f"re_lu_{made}" if made else "re_lu", "re_lu_77", f"re_lu_{made + 1}"]
    assert inside.names_made("re_lu") == made + 2


def test_a_layer_made_in_a_remat_scope_is_computed_again():
    with keras.RematScope(mode="full"):
        inner = keras.layers.Dense(1)
    assert inside.is_recomputed(keras.layers.TimeDistributed(inner))
    assert not inside.is_recomputed(keras.layers.Dense(1))


def test_rates_rounds_and_decay():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert inside.given_rate(keras.optimizers.SGD(schedule)) is schedule
    optimizer = keras.optimizers.SGD(0.5, gradient_accumulation_steps=2, weight_decay=0.1)
    assert float(inside.given_rate(optimizer).value) == 0.5
    assert int(inside.rounds_of(optimizer).value) == 0
    variable = fresh().weights[0]
    assert inside.decays(optimizer, variable)
    optimizer.exclude_from_weight_decay(var_list=[variable])
    assert not inside.decays(optimizer, variable)


def test_the_beginning_of_a_batch_is_told_in_the_main_thread():
    """The hook that steps are recorded in: no future, no thread, whatever the callbacks are."""
    source = inspect.getsource(keras.callbacks.CallbackList.on_train_batch_begin)
    assert "_async" not in source
    assert "for callback in self.callbacks" in source


class Builder(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        inside.build_from_fit(self.model)
        self.found = len(self.model.weights)


def test_a_model_is_built_from_what_fit_knows():
    model, builder = net(built=False), Builder()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(*data(8), batch_size=8, verbose=0, callbacks=[builder])
    assert builder.found == 8


@pytest.mark.parametrize("held", [None, object()])
def test_outside_of_fit_nothing_is_built(held):
    model = net(built=False)
    model.held = held
    inside.build_from_fit(model)
    assert BACKEND
    assert not model.weights


def test_a_variable_is_exchanged_for_others_in_its_place():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="one")])
    layer = model.layers[0]
    old, bias = layer.variables
    before = keras.ops.convert_to_numpy(inside.as_stored(old))
    made = inside.exchange(layer, old, {"a": ((1, 2), "ones"), "b": ((3, 2), lambda shape, dtype=None: old.value)})
    inside.put(layer, "_kernel", "stands here", dict(zip("ab", made, strict=True)))
    inside.list_anew(model)
    assert [id(each) for each in layer.trainable_variables] == [id(each) for each in (*made, bias)]
    assert [each.path for each in made] == [f"{old.path}_a", f"{old.path}_b"]
    assert layer.kernel == "stands here"
    assert layer.kernel_a is made[0]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(made[1].value), before)
    with pytest.raises(ValueError, match="cannot add new elements of state"):
        layer.other = keras.Variable(1.0)
    if BACKEND == "torch":
        names = sorted(name.rpartition("/")[2] for name, _ in layer.named_parameters())
        assert names == ["bias", "kernel_a", "kernel_b"]


def test_no_cast_symbols_and_graphs():
    with keras.src.backend.AutocastScope("float16"):
        assert keras.backend.standardize_dtype(inside.as_stored(keras.Variable(1.0)).dtype) == "float32"
    seen = []

    class Looks(keras.layers.Layer):
        def call(self, x):
            seen.append(inside.is_symbolic())
            return x

    model = keras.Sequential([keras.Input((3,)), Looks()])
    model(np.zeros((1, 3)))
    assert (seen[0], seen[-1], inside.is_symbolic()) == (True, False, False)
    assert inside.is_graph(model)
    assert inside.is_graph(keras.Model(model.inputs, model.outputs))
    assert not inside.is_graph(Looks())
    assert [type(each).__name__ for each in inside.layers_in(model)][-1] == "Looks"
