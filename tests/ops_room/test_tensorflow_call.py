"""The kernel as an operation of a TensorFlow graph, against the float64 oracle."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

import reference

tf = pytest.importorskip("tensorflow")
from normkit.ops import cpu
from normkit.ops import tensorflow_call as call

RNG = np.random.default_rng(0)
NEW = [RNG.normal(size=(300, 50)).astype("f"), np.float32([1e-40, np.nan, -0.0]), np.array(3.0), np.zeros((0, 2), "f")]
OLD = [RNG.normal(size=x.shape).astype("f") for x in NEW]  # the third is float64 beside float32


def assert_columns(matrix, *columns):
    assert matrix.shape[1] == len(columns)
    for column, (x, other) in zip(matrix.T, columns, strict=True):
        reference.assert_sums(column, x, other)


def in_graph(function, *lists):
    return tf.function(lambda: function(*lists))().numpy()


def test_sums_in_a_graph():
    assert_columns(in_graph(call.kernel_sums, NEW), *((x, None) for x in NEW))


def test_sums_of_gradients_in_a_graph():
    assert_columns(in_graph(call.kernel_grad_sums, NEW, OLD), *zip(NEW, OLD, strict=True))


def test_sums_of_a_step_in_a_graph():
    matrix = in_graph(call.kernel_step_sums, NEW, OLD)
    assert_columns(matrix[:6], *((x, None) for x in NEW))
    assert_columns(matrix[6:], *((x.astype(float) - old, old) for x, old in zip(NEW, OLD, strict=True)))


def test_of_no_arrays_there_are_no_columns():
    assert in_graph(call.kernel_sums, []).shape == (6, 0)


def test_a_kernel_that_fails_breaks_no_graph(monkeypatch):
    monkeypatch.setattr(cpu, "sums", lambda table: 1 / 0)
    assert np.isnan(in_graph(call.kernel_sums, NEW)).all()
