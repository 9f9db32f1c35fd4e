"""Small layers with normalized weights, and what each backend of Keras says their first and second derivatives are."""

import contextlib
import functools
import importlib

import keras
import numpy as np

from keras_tiny import BACKEND

layers = keras.layers


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


class Double(layers.Dense):
    """A Dense that multiplies in the precision of its weights: Keras' own is float32 on JAX and PyTorch."""

    def call(self, inputs):
        output = inputs @ self.kernel.value
        return output if self.bias is None else output + self.bias.value


class Own(layers.Layer):
    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 2), name="matrix")
        self.held = [self.add_weight(shape=(2, 2), name="listed")]

    def call(self, x):
        return keras.ops.matmul(keras.ops.matmul(x, self.matrix), self.held[0])


def small():
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((5,)), layers.Dense(3, activation="tanh"), layers.Dense(3)])


def flat():
    return inputs(16, 5), inputs(16, 3)


TOKENS = np.array([[0, 1], [2, 6]], "int32")

KINDS = {  # name -> (makes the layer, its inputs)
    "Dense": (lambda **k: layers.Dense(3, **k), [(4, 5)]),
    "Double": (lambda **k: Double(3, **k), [(4, 5)]),
    "EinsumDense": (lambda **k: layers.EinsumDense("abc,cde->abde", (3, 2, 3), bias_axes="de", **k), [(2, 3, 4)]),
    "Conv1D": (lambda **k: layers.Conv1D(3, 2, **k), [(2, 4, 3)]),
    "Conv2D": (lambda **k: layers.Conv2D(4, 2, groups=2, **k), [(2, 3, 3, 4)]),
    "Conv3D": (lambda **k: layers.Conv3D(2, 2, **k), [(1, 3, 3, 3, 2)]),
    "Conv1DTranspose": (lambda **k: layers.Conv1DTranspose(3, 2, **k), [(2, 4, 2)]),
    "Conv2DTranspose": (lambda **k: layers.Conv2DTranspose(3, 2, **k), [(2, 3, 3, 2)]),
    "Conv3DTranspose": (lambda **k: layers.Conv3DTranspose(3, 2, **k), [(1, 2, 2, 2, 2)]),
    "DepthwiseConv1D": (lambda **k: layers.DepthwiseConv1D(2, depth_multiplier=2, **k), [(2, 4, 3)]),
    "DepthwiseConv2D": (lambda **k: layers.DepthwiseConv2D(2, **k), [(2, 3, 3, 3)]),
    "SeparableConv1D": (lambda **k: layers.SeparableConv1D(3, 2, **k), [(2, 4, 3)]),
    "SeparableConv2D": (lambda **k: layers.SeparableConv2D(3, 2, **k), [(2, 3, 3, 3)]),
    "Embedding": (lambda **k: layers.Embedding(7, 3, mask_zero=True, **k), [TOKENS]),
    "ReversibleEmbedding": (lambda **k: layers.ReversibleEmbedding(7, 3, **k), [TOKENS]),
    "SimpleRNN": (lambda **k: layers.SimpleRNN(3, **k), [(2, 3, 2)]),
    "LSTM": (lambda **k: layers.LSTM(3, return_sequences=True, **k), [(2, 3, 2)]),
    "GRU": (lambda **k: layers.GRU(3, **k), [(2, 3, 2)]),
    "RNN": (lambda **k: layers.RNN([layers.LSTMCell(3, **k), layers.GRUCell(2, **k)], **k), [(2, 3, 2)]),
    "ConvLSTM1D": (lambda **k: layers.ConvLSTM1D(2, 2, **k), [(2, 2, 4, 2)]),
    "ConvLSTM2D": (lambda **k: layers.ConvLSTM2D(2, 2, **k), [(1, 2, 3, 3, 1)]),
    "ConvLSTM3D": (lambda **k: layers.ConvLSTM3D(2, 2, **k), [(1, 2, 3, 3, 3, 1)]),
    "Bidirectional": (lambda **k: layers.Bidirectional(layers.SimpleRNN(3, **k), **k), [(2, 3, 2)]),
    "TimeDistributed": (lambda **k: layers.TimeDistributed(layers.Dense(3, **k), **k), [(2, 3, 2)]),
    "MultiHeadAttention": (lambda **k: layers.MultiHeadAttention(2, 3, **k), [(2, 3, 4), (2, 4, 4)]),
    "GroupedQueryAttention": (lambda **k: layers.GroupQueryAttention(2, 2, 1, **k), [(2, 3, 4), (2, 4, 4)]),
}

QUICK = ["Dense"]
HERE = QUICK if BACKEND == "jax" else list(KINDS)  # op by op, JAX compiles each for seconds


def made(kind, **keywords):
    """A fresh layer and its inputs."""
    keras.utils.set_random_seed(11)
    make, given = KINDS[kind]
    return make(**keywords), [each if isinstance(each, np.ndarray) else inputs(*each) for each in given]


def array(x):
    return np.array(keras.ops.convert_to_numpy(x.value if isinstance(x, keras.Variable) else x))


@contextlib.contextmanager
def doubles():
    """float64, where a backend must be asked for it."""
    if BACKEND == "jax":
        import jax

        with jax.enable_x64(True):
            yield
    else:
        yield


def _loss(output):
    """sum of sin(i y_i), by the backend itself: Keras' own operations are float32 on JAX."""
    library = importlib.import_module({"jax": "jax.numpy", "tensorflow": "tensorflow.math", "torch": "torch"}[BACKEND])
    shape = tuple(output.shape)
    factors = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    factors = keras.ops.convert_to_tensor(factors, dtype=keras.backend.standardize_dtype(output.dtype))
    waves = library.sin(factors * output)
    return library.reduce_sum(waves) if BACKEND == "tensorflow" else waves.sum()


def loss(layer, given):
    if BACKEND == "jax":
        return float(_compiled(layer, "loss")(*_state(layer), given))
    return float(array(_loss(layer(*given))))


def gradients(layer, given, directions=None):
    """dL/dx of every trained variable, and with directions d the second derivatives sum of d2L/dx dy d_y."""
    return {"jax": _by_jax, "tensorflow": _by_tensorflow, "torch": _by_torch}[BACKEND](layer, given, directions)


def _by_jax(layer, given, directions):
    if directions is None:
        found = _compiled(layer, "first")(*_state(layer), given)
    else:
        found = _compiled(layer, "second")(*_state(layer), given, directions)
    return [array(each) for each in found]


def _state(layer):
    return [[each.value for each in some] for some in (layer.trainable_variables, layer.non_trainable_variables)]


@functools.cache
def _compiled(layer, which):
    """Once for all points that a test asks for."""
    import jax
    import jax.numpy as jnp

    def of(values, fixed, given):
        return _loss(layer.stateless_call(values, fixed, *given)[0])

    def along(values, fixed, given, directions):
        return sum(jnp.vdot(g, d) for g, d in zip(jax.grad(of)(values, fixed, given), directions, strict=True))

    return jax.jit({"loss": of, "first": jax.grad(of), "second": jax.grad(along)}[which])


def _by_tensorflow(layer, given, directions):
    import tensorflow as tf

    values = [each.value for each in layer.trainable_variables]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            total = _loss(layer(*given))
        first = [tf.convert_to_tensor(each) for each in inner.gradient(total, values)]
        if directions is not None:
            along = tf.add_n([tf.reduce_sum(g * d) for g, d in zip(first, directions, strict=True)])
    return [
        array(tf.convert_to_tensor(each)) for each in (first if directions is None else outer.gradient(along, values))
    ]


def _by_torch(layer, given, directions):
    import torch

    values = [each.value for each in layer.trainable_variables]
    first = torch.autograd.grad(_loss(layer(*given)), values, create_graph=directions is not None)
    if directions is None:
        return [array(each) for each in first]
    along = sum((g * torch.as_tensor(d)).sum() for g, d in zip(first, directions, strict=True))
    return [array(each) for each in torch.autograd.grad(along, values)]
