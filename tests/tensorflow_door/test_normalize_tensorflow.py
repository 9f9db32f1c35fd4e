"""Every method of `normalize` on TensorFlow tensors, eager and inside `tf.function`."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

from normal_methods import FEW, SPECTRAL, Derivatives, Library, Values, drawn
from normkit.normalize import spectral_normalized, spectral_start


def grad(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, unconnected_gradients="zero")


class TestTensorflow(Values, Derivatives):
    methods, dtypes = FEW, ("float32",)
    library = Library(
        array=lambda x, dtype: tf.cast(tf.constant(np.asarray(x, np.float64)), dtype),
        numpy=lambda x: tf.cast(x, tf.float64).numpy(),
        dtype=lambda x: x.dtype.name,
        grad=grad,
        total=lambda x, other: tf.reduce_sum(x * other),
        compiled=lambda function: tf.function(function, jit_compile=True),
    )


def test_a_variable_is_an_array_too():
    w = tf.Variable(drawn())
    _, sigma, u = spectral_normalized(w, tf.Variable(spectral_start(w)), iterations=100)
    assert float(sigma) == pytest.approx(np.linalg.svd(drawn().reshape(4, 15), compute_uv=False)[0])
    assert tuple(u.shape) == (4, 1, 1)
    np.testing.assert_array_equal(SPECTRAL.apply(w).numpy(), SPECTRAL.apply(tf.constant(drawn())).numpy())
