"""Derivatives of normalized layers, to the second, and a hundred steps that are known to the last digit."""

import keras
import numpy as np
import pytest

import normal
import normkit.keras as nk
from keras_normal import Double, array, doubles, gradients, loss, made
from keras_tiny import BACKEND, only_on

layers = keras.layers
STEP = 1e-5

DERIVED = [
    ("Double", "out", 2),
    ("Double", "in", 2),
    ("Double", "tensor", 2),
    ("Double", (0, 1), 2),
    ("Double", -1, 3),
    ("Double", 0, 1),
    ("Conv2D", "out", 2),
    ("Conv1DTranspose", "out", 2),
    ("SeparableConv1D", "out", 2),
    ("EinsumDense", "out", 2),
    ("Embedding", "out", 2),
    ("LSTM", "out", 2),
    ("MultiHeadAttention", "out", 2),
]
if BACKEND != "tensorflow":  # elsewhere Keras multiplies matrices in float32
    DERIVED = [row for row in DERIVED if row[0] not in ("EinsumDense", "LSTM", "MultiHeadAttention")]
if BACKEND == "jax":
    DERIVED = DERIVED[:1]


@pytest.mark.parametrize(("kind", "per", "p"), DERIVED)
def test_derivatives_are_those_of_finite_differences(kind, per, p):
    with doubles():
        layer, given = made(kind, dtype="float64")
        given = [each if each.dtype.kind == "i" else each.astype("float64") for each in given]
        wrapper = nk.WeightNorm(layer, per=per, p=p)
        wrapper(*given)
        variables = wrapper.trainable_variables
        rng = np.random.default_rng(2)
        start = [array(each) * rng.uniform(0.5, 2, each.shape) for each in variables]
        along = [rng.normal(size=each.shape) for each in variables]

        def moved(t, what, *rest):
            for variable, value, way in zip(variables, start, along, strict=True):
                variable.assign(value + t * way)
            return what(wrapper, given, *rest)

        first = moved(0, gradients)
        assert all(each.dtype == np.float64 for each in first)
        slope = (moved(STEP, loss) - moved(-STEP, loss)) / (2 * STEP)
        assert sum((g * d).sum() for g, d in zip(first, along, strict=True)) == pytest.approx(slope, rel=1e-6, abs=1e-7)
        second = moved(0, gradients, along)
        bend = [(a - b) / (2 * STEP) for a, b in zip(moved(STEP, gradients), moved(-STEP, gradients), strict=True)]
        for one, other in zip(second, bend, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * max(1, abs(other).max()))


def test_the_gradient_is_the_closed_form_and_orthogonal():
    with doubles():
        layer, given = made("Double", dtype="float64", use_bias=False)
        given = [given[0].astype("float64")]
        layer(*given)
        (of_w,) = gradients(layer, given)
        w = array(layer.kernel)
        wrapper = nk.WeightNorm(layer)
        wrapper(*given)
        of_g, of_v = gradients(wrapper, given)
        right_v, right_g = normal.gradients(of_w, w, normal.lengths(w, (1,)), (1,))
        np.testing.assert_allclose(of_g, right_g, rtol=1e-12)
        np.testing.assert_allclose(of_v, right_v, rtol=1e-11, atol=1e-13)
        assert abs((of_v * w).sum(0)).max() < 1e-12


def test_a_zero_group_has_finite_derivatives_of_the_closed_form():
    with doubles():
        layer, given = made("Double", dtype="float64", use_bias=False)
        given = [given[0].astype("float64")]
        wrapper = nk.WeightNorm(layer)
        wrapper(*given)
        v = array(layer.kernel.v)
        v[:, 1] = 0
        layer.kernel.v.assign(v)
        layer.kernel.g.assign([[1.0, 2.0, 3.0]])
        folded = wrapper.fold()
        assert not array(folded.kernel)[:, 1].any()
        (of_w,) = gradients(folded, given)
        of_g, of_v = gradients(wrapper, given)
        right_v, right_g = normal.gradients(of_w, v, np.array([[1.0, 2.0, 3.0]]), (1,))
        np.testing.assert_allclose(of_g, right_g, rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(of_v, right_v, rtol=1e-11, atol=1e-13)
        second = gradients(wrapper, given, [np.ones((1, 3)), np.zeros((5, 3))])
        assert all(np.isfinite(each).all() for each in second)
        np.testing.assert_allclose(second[1][:, 1], of_w[:, 1], rtol=1e-12)  # d2w/dg dv = 1, and L is linear in w at 0


def test_a_hundred_steps_are_those_of_the_formula():
    with doubles():
        x, y, (one, two) = normal.start()
        net = [nk.WeightNorm(Double(size, dtype="float64", kernel_initializer="zeros")) for size in normal.SIZES[1:]]
        for wrapper, size in zip(net, normal.SIZES, strict=False):
            wrapper.build((None, size))
        for wrapper, (w, b) in zip(net, (one, two), strict=True):
            wrapper.layer.kernel.v.assign(w.T)
            wrapper.layer.kernel.g.assign(normal.lengths(w.T, (1,)))
            wrapper.layer.bias.assign(b)
        TRAINERS[BACKEND](net, x, y)
        for wrapper, (v, g, b) in zip(net, normal.trained(), strict=True):
            kernel = wrapper.layer.kernel
            for mine, right in ((kernel.v, v.T), (kernel.g, g.T), (wrapper.layer.bias, b)):
                np.testing.assert_allclose(array(mine), right, rtol=1e-12, atol=1e-13)


def _with_jax(net, x, y):
    import jax
    import jax.numpy as jnp

    @jax.jit
    def step(values):
        def of(values):
            hidden = jnp.tanh(net[0].stateless_call(values[:3], [], x)[0])
            return ((net[1].stateless_call(values[3:], [], hidden)[0] - y) ** 2).mean()

        return [value - normal.RATE * slope for value, slope in zip(values, jax.grad(of)(values), strict=True)]

    variables = net[0].trainable_variables + net[1].trainable_variables
    values = [each.value for each in variables]
    for _ in range(normal.STEPS):
        values = step(values)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _with_tensorflow(net, x, y):
    import tensorflow as tf

    variables = net[0].trainable_variables + net[1].trainable_variables
    for _ in range(normal.STEPS):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((net[1](tf.tanh(net[0](x))) - y) ** 2)
        for variable, slope in zip(variables, tape.gradient(loss, [each.value for each in variables]), strict=True):
            variable.assign_sub(normal.RATE * slope)


def _with_torch(net, x, y):
    import torch

    x, y = torch.tensor(x), torch.tensor(y)
    optimizer = torch.optim.SGD([each.value for wrapper in net for each in wrapper.trainable_variables], normal.RATE)
    for _ in range(normal.STEPS):
        optimizer.zero_grad()
        ((net[1](torch.tanh(net[0](x))) - y) ** 2).mean().backward()
        optimizer.step()


TRAINERS = {"jax": _with_jax, "tensorflow": _with_tensorflow, "torch": _with_torch}


@only_on("tensorflow", "torch")
def test_a_hundred_steps_of_fit_in_float32():
    x, y, start = normal.start()
    model = nk.weight_norm(keras.Sequential([keras.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dense(3)]))
    for wrapper, (w, b) in zip(model.layers, start, strict=True):
        wrapper.layer.kernel.assign(w.T)
        wrapper.layer.bias.assign(b)
    model.compile(keras.optimizers.SGD(normal.RATE), "mse")
    rows = [np.tile(each.astype("float32"), (normal.STEPS, 1)) for each in (x, y)]
    model.fit(*rows, batch_size=normal.ROWS, verbose=0, shuffle=False)
    for wrapper, (v, g, _) in zip(model.layers, normal.trained(), strict=True):
        for mine, right in ((wrapper.layer.kernel.v, v.T), (wrapper.layer.kernel.g, g.T)):
            assert abs(array(mine) - right).max() < 1e-5 * abs(right).max()
