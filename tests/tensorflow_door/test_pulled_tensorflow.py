"""Terms, limits and decays on TensorFlow tensors, eager and inside `tf.function`."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import pulled
from normal_methods import Library, drawn
from normkit.constrain import spectral_cap
from pulled_methods import CompiledSteps, CompiledTerms, Limits, Steps, TermDerivatives, Terms
from pulled_rows import DECAYS, LIMITS, TERMS, THRESHOLDS


def grad(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, unconnected_gradients="zero")


TENSORFLOW = Library(
    array=lambda x, dtype: tf.cast(tf.constant(np.asarray(x, np.float64)), dtype),
    numpy=lambda x: tf.cast(x, tf.float64).numpy(),
    dtype=lambda x: x.dtype.name,
    grad=grad,
    total=lambda x, other: tf.reduce_sum(x * other),
    compiled=lambda function: tf.function(function, autograph=False),
)


class Few:
    """The formulas are tested elsewhere: here is what the fine operations of this library can spoil."""

    library, pers, dtypes = TENSORFLOW, ((0, 2),), ("bfloat16",)
    test_in_whatever_order_the_units_are = test_in_whatever_order_the_groups_are = None
    test_a_power_of_two_comes_out = test_the_second_derivative_is_that_of_the_gradient = None


class TestTerms(Few, Terms, TermDerivatives):
    rows = TERMS


class TestSteps(Few, Steps):
    rows = THRESHOLDS + DECAYS


class TestLimits(Few, Limits):
    rows = LIMITS


class TestCompiledTerms(CompiledTerms):
    library, rows = TENSORFLOW, TERMS[5:]


class TestCompiledSteps(CompiledSteps):
    library = TENSORFLOW
    rows = LIMITS[::4] + DECAYS[3:4] + THRESHOLDS[1:]


@pytest.mark.slow
def test_a_cap_in_xla():
    w = tf.constant(drawn((4, 3)))
    capped = tf.function(lambda w: spectral_cap(w, 1.0), jit_compile=True, autograph=False)
    assert 1 - 1e-9 <= pulled.sigmas(capped(w).numpy())[0] <= 1
    assert (capped(capped(w)).numpy() == capped(w).numpy()).all()
    within = tf.constant(drawn((4, 3)) / 100)
    assert (capped(within).numpy() == within.numpy()).all()


def test_a_variable_is_an_array_too():
    w = tf.Variable(drawn((4, 3)))
    assert pulled.sigmas(spectral_cap(w, 1.0).numpy())[0] <= 1
