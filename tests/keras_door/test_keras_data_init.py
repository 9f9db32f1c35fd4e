"""`data_init`: each layer begins with outputs of mean 0 and variance 1."""

import keras
import numpy as np
import pytest

import normkit.keras as nk
from keras_normal import array, flat, inputs, small
from keras_tiny import only_on
from normkit import ModelError
from normkit.keras.effective import all_effective

layers = keras.layers


def convolutional():
    keras.utils.set_random_seed(5)
    kinds = [
        layers.Conv1D(4, 2, activation="relu"),
        layers.Conv1DTranspose(3, 2, activation=layers.ReLU()),
        layers.DepthwiseConv1D(2, depth_multiplier=2, activation="tanh"),
        layers.SeparableConv1D(3, 2, use_bias=False),
        layers.EinsumDense("abc,cde->abed", (4, 3, 2), bias_axes="ed"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((6, 3)), *kinds])


@only_on("tensorflow", "torch")  # op by op, JAX compiles each layer for seconds
def test_a_first_batch_starts_every_layer_at_mean_0_and_variance_1():
    model = nk.weight_norm(convolutional())
    batch = inputs(64, 6, 3)
    v = [array(each.v) for each in all_effective(model)]
    (depthwise,) = [each for each in all_effective(model) if each.name == "depthwise_kernel"]
    first = array(depthwise.g)
    names = nk.data_init(model, batch)
    assert names == ["conv1d", "conv1d_transpose", "depthwise_conv1d", "separable_conv1d", "einsum_dense", "dense"]
    assert all((old == array(each.v)).all() for old, each in zip(v, all_effective(model), strict=True))
    np.testing.assert_array_equal(array(depthwise.g), first)
    flow = batch
    for layer in model.layers:
        if isinstance(layer, nk.WeightNorm):
            plain = layer.fold()
            vars(plain)["activation"] = keras.activations.linear
            before = array(plain(flow)).astype("float64")
            if isinstance(plain, layers.EinsumDense):
                before = before.reshape(-1, 6)
            means, variances = before.reshape(-1, before.shape[-1]).mean(0), before.reshape(-1, before.shape[-1]).var(0)
            np.testing.assert_allclose(variances, 1, atol=1e-6)
            if getattr(plain, "bias", None) is not None:
                np.testing.assert_allclose(means, 0, atol=1e-6)
        flow = array(layer(flow))


def test_a_constant_output_leaves_the_model_as_it_was():
    model = nk.weight_norm(small())
    before = model.get_weights()
    x = flat()[0]
    with pytest.raises(ModelError, match=r"dense has 3 of 3 outputs that are the same for all 16 samples") as caught:
        nk.data_init(model, x * 0)
    assert "\n" not in str(caught.value)
    assert all((one == two).all() for one, two in zip(before, model.get_weights(), strict=True))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 5"):
        nk.data_init(model, inputs(4, 9))
    assert all((one == two).all() for one, two in zip(before, model.get_weights(), strict=True))
    assert nk.data_init(model, x) == ["dense", "dense_1"]
    outputs = array(model(x)).astype("float64")
    np.testing.assert_allclose((outputs.mean(0), outputs.var(0)), [[0] * 3, [1] * 3], atol=1e-6)
