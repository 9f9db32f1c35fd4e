"""Names, roles and axes of variables, and a look at them."""

import os
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
tf_keras = pytest.importorskip("tf_keras")
import keras

import normkit.tensorflow as nk
from normkit import ArgumentError, ModelError
from normkit.tensorflow.walk import walk

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:tf_keras")

BACKENDS = {"tf_keras": tf_keras, "keras": keras}


def parameters(model):
    return {each.param.name: each.param for each in walk(model)}


class Block(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.ones((3, 4)))
        self._scales = {"gamma": tf.Variable(tf.ones(4)), "beta": tf.Variable(tf.zeros(4))}


class Model(tf.Module):
    def __init__(self):
        super().__init__()
        self.embedding = tf.Variable(tf.ones((9, 3)))
        self.blocks = [Block(), Block()]
        self.head = tf_keras.layers.Dense(2)
        self.head.build((None, 4))
        self.step = tf.Variable(0, trainable=False)
        self.tied = self.embedding
        self.itself = self


def test_attributes_lists_dicts_and_layers_of_a_module():
    found = parameters(Model())
    assert {name: param.role for name, param in found.items()} == {
        "embedding": "embedding",
        "blocks.0.w": "kernel",
        "blocks.0._scales.gamma": "scale",
        "blocks.0._scales.beta": "bias",
        "blocks.1.w": "kernel",
        "blocks.1._scales.gamma": "scale",
        "blocks.1._scales.beta": "bias",
        "head.kernel": "kernel",
        "head.bias": "bias",
        "step": "other",
    }
    assert found["embedding"].aliases == ("tied",)
    assert not found["step"].trainable
    assert (found["head.kernel"].out_axes, found["head.kernel"].in_axes) == ((1,), (0,))
    assert found["blocks.0.w"].out_axes is None  # a module of one's own does not say


def test_variables_by_their_names_and_places():
    a, b = tf.Variable([1.0], name="a"), tf.Variable([1.0], name="a")
    assert list(parameters([a, b, tf.Variable([1.0])])) == ["a", "a~2", "2"]
    assert list(parameters({"x": a, "y": [b, {"z": a}]})) == ["x", "y.a"]
    assert parameters({"x": a, "y": [b, {"z": a}]})["x"].aliases == ("y.1.z",)
    assert list(parameters(a)) == ["a"]


def convolutional(library):
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.Reshape((16, 4)),
            layers.LSTM(3),
            layers.Dense(2, name="head"),
            layers.Dense(2),
        ]
    )


@pytest.mark.parametrize("library", BACKENDS)
def test_keras_models_have_the_same_names_each_time(library):
    first, second = (parameters(convolutional(BACKENDS[library])) for _ in range(2))
    assert list(first) == list(second)
    roles = {name: param.role for name, param in first.items()}
    assert roles["conv2d.kernel"] == "kernel"
    assert roles["batch_normalization.gamma"] == "scale"
    assert roles["batch_normalization.moving_mean"] == "buffer"
    assert first["lstm.lstm_cell.recurrent_kernel"].out_axes == (1,)
    assert (first["conv2d.kernel"].out_axes, first["conv2d.kernel"].in_axes) == ((3,), (2,))
    assert {"head.kernel", "head.bias", "dense.kernel"} <= {*first}
    assert len(first) == 15


@pytest.mark.parametrize("library", BACKENDS)
def test_norms_of_a_keras_model(library):
    model = BACKENDS[library].Sequential([BACKENDS[library].layers.Input((3,)), BACKENDS[library].layers.Dense(2)])
    kernel = model.weights[0].numpy()
    np.testing.assert_allclose(nk.norms(model, "l2")["dense.kernel"], np.linalg.norm(kernel), rtol=1e-7)
    np.testing.assert_allclose(nk.norms(model, "l1", per="out", select="kernel")["dense.kernel"], abs(kernel).sum(0))
    np.testing.assert_allclose(nk.norms(model, "spectral")["dense.kernel"], np.linalg.norm(kernel, 2), rtol=1e-6)


def test_explain_says_which_and_why():
    text = str(nk.explain(Model(), "kernel"))
    assert "blocks.0.w" in text
    assert "layer Dense" in text


def test_a_keras_model_on_another_backend_is_sent_to_its_own_door():
    class Layer:
        __module__ = "keras.layers"
        name, trainable, trainable_weights = "fake", True, ()
        weights = (types.SimpleNamespace(name="w", value=np.ones(2)),)

        def _flatten_layers(self, **_):
            return []

    with pytest.raises(ModelError, match="Layer holds weights of ndarray: Keras runs on another backend than Tensor"):
        walk(Layer())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: nk.norms("l2", Model()), "model='l2': the model comes first"),
        (lambda: nk.norms(Model(), "l3"), "'l3'"),
        (lambda: nk.norms(Model(), select="nothing*"), r"select='nothing\*' matches none of 10 parameters"),
        (lambda: nk.norms(Model(), "spectral", per="out", select="head.kernel"), "a norm of the whole matrix of head"),
        (lambda: nk.norms(keras.KerasTensor((3,))), "model=KerasTensor: expected a tf.Module"),
    ],
)
def test_misuse_is_said(call, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        call()
