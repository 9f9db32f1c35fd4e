"""`WeightNorm` around each kind of layer: the function stays, w = g v / |v|, derivatives to the second."""

import contextlib
import inspect
import math

import keras
import numpy as np
import pytest

import normal
import normkit.keras as nk
from keras_normal import HERE, KINDS, QUICK, Own, array, inputs, made
from keras_tiny import BACKEND, only_on
from normkit.keras.effective import all_effective
from normkit.keras.walk import walk

layers = keras.layers
SAME_CODE = {"LSTMCell", "GRUCell", "SimpleRNNCell"}  # inside those of the table
BUILT = ["Dense", "EinsumDense", "Conv2D", "Conv2DTranspose", "SeparableConv1D", "LSTM", "MultiHeadAttention"]


def effective(layer):
    """[(located, kept axes)] of the normalized weights."""
    return [item for item in walk(layer) if item.param.part == "effective"]


def test_every_layer_with_a_kernel_is_in_the_table():
    found = {
        cls.__name__
        for cls in vars(layers).values()
        if inspect.isclass(cls)
        and issubclass(cls, layers.Layer)
        and any(word in name for name in inspect.signature(cls).parameters for word in ("kernel_ini", "embeddings_ini"))
    }
    assert found - SAME_CODE <= set(KINDS)
    assert len(found) > 20


@pytest.mark.parametrize("kind", HERE)
def test_wrapping_changes_no_bit_and_fold_gives_the_layer_back(kind):
    layer, given = made(kind)
    before = array(layer(*given))
    plain = {item.param.name: array(item.value()) for item in walk(layer)}
    wrapper = nk.WeightNorm(layer)
    np.testing.assert_array_equal(array(wrapper(*given)), before)
    weights = effective(wrapper)
    assert {item.param.name for item in weights} <= set(plain)
    assert {item.param.name for item in weights} >= {name for name in plain if name.endswith("kernel")}
    for item in weights:
        np.testing.assert_array_equal(array(item.variable.v), plain[item.param.name])
        assert item.param.out_axes == item.variable.kept
        g = normal.lengths(plain[item.param.name], item.variable.kept)
        np.testing.assert_allclose(array(item.variable.g), g, rtol=3e-7)
        assert array(item.variable.g).shape == g.shape
        item.variable.g.assign(g * np.linspace(0.5, 2, g.size).reshape(g.shape))
        item.variable.v.assign(3 * plain[item.param.name])
    changed = array(wrapper(*given))
    assert abs(changed - before).max() > 1e-3
    for item in weights:
        right = normal.weight(array(item.variable.v), array(item.variable.g), item.variable.kept)
        np.testing.assert_allclose(array(item.value()), right, rtol=1e-6, atol=1e-9)
    folded = wrapper.fold()
    assert type(folded) is type(layer)
    assert not all_effective(folded)
    assert folded.name == wrapper.name
    np.testing.assert_array_equal(array(folded(*given)), changed)
    assert list(nk.norms(folded)) == list(plain)


@pytest.mark.parametrize("kind", [kind for kind in BUILT if kind in HERE])
def test_built_by_a_model_it_is_the_same_layer(kind):
    layer, given = made(kind)
    before = array(layer(*given))
    fresh, _ = made(kind)
    wrapper = nk.WeightNorm(fresh)
    symbols = [keras.Input(each.shape[1:], dtype=str(each.dtype)) for each in given]
    model = keras.Model(symbols, wrapper(*symbols))
    assert model.output_shape[1:] == before.shape[1:]
    for old, new in zip(
        walk(layer), [item for item in walk(wrapper) if item.param.part in ("whole", "effective")], strict=True
    ):
        new.variable.assign(array(old.variable))
    np.testing.assert_array_equal(array(model(given)), before)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", QUICK if BACKEND == "jax" else ["Dense", "Embedding"])
def test_half_precision_goes_through_float32(kind, policy):
    layer, given = made(kind, dtype=policy)
    before = layer(*given)
    wrapper = nk.WeightNorm(layer)
    after = wrapper(*given)
    assert keras.backend.standardize_dtype(after.dtype) == policy.removeprefix("mixed_")
    g = all_effective(wrapper)[0].g
    assert g.dtype == ("float32" if policy.startswith("mixed") else policy)
    before, after = (array(each).astype("float64") for each in (before, after))
    # bit-equal where g is float32; where g itself is rounded to half precision, one ulp of a weight
    scale = 0 if policy.startswith("mixed") else {"float16": 2**-9, "bfloat16": 2**-6}[policy] * abs(before).max()
    np.testing.assert_allclose(after, before, rtol=0, atol=scale)


@only_on("tensorflow", "torch")
def test_tables_are_worked_out_once_per_call(monkeypatch):
    from normkit.keras import effective as module

    layer, given = layers.SimpleRNN(3), [inputs(2, 3, 3)]
    wrapper = nk.WeightNorm(layer)
    wrapper(*given)
    count = []
    true = module.normalized
    monkeypatch.setattr(module, "normalized", lambda *a, **k: count.append(1) or true(*a, **k))
    wrapper(*given)
    assert len(count) == 2  # kernel and recurrent kernel, for three time steps
    monkeypatch.setattr(layer, "call", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wrapper.call(*given)
    assert not module._HELD.values


@only_on("torch")  # on JAX a gradient cannot see it; on TensorFlow Keras' own compiled steps fail in this scope
def test_a_layer_that_is_computed_again_for_its_gradient():
    found = []
    for scope in (contextlib.nullcontext(), keras.RematScope(mode="full")):
        with scope:
            model = keras.Sequential([keras.Input((5,)), nk.WeightNorm(layers.Dense(3, kernel_initializer="ones"))])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(inputs(4, 5), inputs(4, 3), verbose=0)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert one.any()


def test_regularizer_acts_on_the_weight_once_and_the_activity_too():
    layer = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1")
    symbol = keras.Input((5,))
    wrapper = nk.WeightNorm(layer)
    model = keras.Model(symbol, wrapper(wrapper(symbol)[:, :1] + symbol))
    layer.kernel.g.assign([[1.0, 2.0, 3.0]])
    model(inputs(4, 5))
    assert [float(array(each)) for each in model.losses][-1] == pytest.approx(0.01 * 14, rel=1e-6)
    assert len(model.losses) == 3


def test_freezing_the_wrapper_or_the_layer():
    layer, given = made("Dense")
    wrapper = nk.WeightNorm(layer)
    wrapper(*given)
    assert [each.name for each in wrapper.trainable_variables] == ["kernel_g", "kernel_v", "bias"]
    for one in (wrapper, layer):
        one.trainable = False
        assert not layer.trainable_variables
        assert not any(item.param.trainable for item in walk(keras.Sequential([wrapper])))
        one.trainable = True
    layer.kernel.trainable = False
    assert [each.name for each in wrapper.trainable_variables] == ["bias"]
    frozen = nk.WeightNorm(layers.Dense(3, trainable=False))
    frozen(*given)
    assert (len(frozen.weights), len(frozen.trainable_weights), frozen.trainable) == (3, 0, False)


def test_assigning_the_weight_sets_both_parts():
    layer, given = made("Dense")
    wrapper = nk.WeightNorm(layer)
    wrapper(*given)
    layer.kernel.assign(np.full((5, 3), 2.0))
    np.testing.assert_allclose(array(layer.kernel.g), np.full((1, 3), 2 * math.sqrt(5)), rtol=1e-6)
    layer.kernel.assign(layer.kernel * 2)
    np.testing.assert_allclose(array(layer.kernel), 4, rtol=1e-6)


@only_on("tensorflow", "torch")
def test_weights_of_other_layers_by_name():
    wrapper = nk.WeightNorm(Own(), select="matrix", per=-1)
    plain = wrapper.layer.call
    out = array(wrapper(inputs(4, 5)))
    np.testing.assert_array_equal(out, array(plain(inputs(4, 5))))
    assert list(nk.norms(wrapper)) == ["matrix", "matrix.g", "matrix.v", "listed"]
    scale = nk.WeightNorm(layers.LayerNormalization(), select="gamma", per="tensor")
    scale(inputs(4, 5))
    assert [each.name for each in scale.weights] == ["gamma_g", "gamma_v", "beta"]


@only_on("tensorflow", "torch")
def test_only_the_table_of_an_embedding_that_is_wrapped_itself():
    class Words(layers.Layer):
        def __init__(self):
            super().__init__()
            self.table, self.head = layers.Embedding(7, 3), layers.Dense(3)

        def build(self, shape):
            self.table.build(shape)
            self.head.build((*shape, 3))

        def call(self, x):
            return self.head(self.table(x))

    wrapper = nk.WeightNorm(Words())
    wrapper(np.array([[1, 2]], "int32"))
    assert [item.param.name for item in effective(wrapper)] == ["dense.kernel"]
    both = nk.WeightNorm(Words(), ["embedding", "kernel"])
    both(np.array([[1, 2]], "int32"))
    assert [item.param.name for item in effective(both)] == ["embedding.embeddings", "dense.kernel"]
