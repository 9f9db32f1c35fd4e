"""The drawer of TensorFlow against the float64 oracle: in memory, inside functions, and as for a device."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest

import reference

tf = pytest.importorskip("tensorflow")
import normkit
from normkit import ArgumentError
from normkit.ops import ops_of
from normkit.ops import tensorflow as ops
from normkit.ops import tensorflow_traced as traced

NAN, INF = float("nan"), float("inf")
RNG = np.random.default_rng(0)

ARRAYS = {
    "matrix": RNG.normal(size=(300, 300)).astype("f"),
    "no multiple of a strip": RNG.normal(size=70001),
    "NaN and inf": np.array([1.0, NAN, INF]),
    "both infinities": np.array([INF, -INF, 0.0]),
    "late NaN": np.array([1.0] * 100_000 + [NAN], "f"),
    "empty": np.zeros((0, 3)),
    "zeros of both signs": np.array([-0.0, 0.0, 2.0], "f"),
    "one number": np.array(3.0),
    "huge": np.array([1e20] * 4, "f"),
    "tiny": np.array([1e-30] * 4, "f"),
    "long float16": np.array([6e4] * 70_000, np.float16),
    "integers": np.array([1, -2, 0]),
    "booleans": np.array([True, False]),
    "int8": np.array([-128, 127], np.int8),
}
HALVES = {"bfloat16": (tf.bfloat16, [1.5, -2.0]), "float8": (tf.dtypes.experimental.float8_e4m3fn, [1.5, -2.0])}


def tensors():
    halves = [tf.cast(tf.constant(values), dtype) for dtype, values in HALVES.values()]
    return [*(tf.constant(array) for array in ARRAYS.values()), *halves]


def oracle(arrays, partners=None):
    """[6 or 7][N], each column by the oracle."""
    beside = [None] * len(arrays) if partners is None else partners
    columns = [list(reference.sums(x, y).values()) for x, y in zip(arrays, beside, strict=True)]
    return np.array(columns).T


def expected():
    return oracle([*ARRAYS.values(), *(np.array(values) for _, values in HALVES.values())])


def away(monkeypatch):
    """As if every tensor were a device's."""
    monkeypatch.setattr(ops, "_here", lambda t: False)


WAYS = {
    "in memory": ops.matrix_of_sums,
    "eager": lambda x: traced.traced_sums(x).numpy(),
    "tf.function": lambda x: tf.function(lambda: ops.traced_sums(x))().numpy(),
    "jit_compile": lambda x: tf.function(lambda: ops.traced_sums(x), jit_compile=True)().numpy(),
}


@pytest.mark.parametrize("way", WAYS)
def test_sums(way):
    np.testing.assert_allclose(WAYS[way](tensors()), expected(), rtol=1e-12)


def test_sums_of_a_device_are_fetched_once(monkeypatch):
    away(monkeypatch)
    pending = ops.sums([*tensors(), None])
    assert not pending.ready()  # TensorFlow does not tell: the first question is answered no
    assert pending.ready()
    np.testing.assert_allclose(pending.wait()[0][:, :-1], expected(), rtol=1e-12)
    assert np.isnan(pending.wait()[0][:, -1]).all()


@pytest.mark.parametrize("device", [False, True])
def test_gradients_and_steps(monkeypatch, device):
    if device:
        away(monkeypatch)
    w, g = (RNG.normal(size=(40, 50)).astype("f") for _ in range(2))
    new = (w - 0.1 * g).astype("f")
    cache = ops.Cache()
    for _ in range(2):
        (grads,) = ops.grad_sums([tf.constant(g), None], [tf.Variable(w)] * 2, cache=cache).wait()
        np.testing.assert_allclose(grads[:, :1], oracle([g], [w]), rtol=1e-9)
        assert np.isnan(grads[:, 1]).all()
    weights, steps = ops.step_sums([tf.Variable(new)], [tf.constant(w)]).wait()
    np.testing.assert_allclose(weights, oracle([new]), rtol=1e-12)
    np.testing.assert_allclose(steps, oracle([new.astype("d") - w], [w.astype("d")]), rtol=1e-9)


def test_a_gradient_of_another_dtype_than_its_weight():
    g, w = tf.constant([1.5, -2.0], tf.float16), tf.Variable([3.0, 0.5])
    np.testing.assert_allclose(ops.grad_sums([g], [w]).wait()[0], oracle([np.array([1.5, -2.0])], [w.numpy()]))


def gradient_of_rows(table, ids):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table, ids) ** 2)
    return tape.gradient(loss, table)


@pytest.mark.parametrize("ids", [[1, 1, 1, 4], [0] * 30, [3], list(range(9))])
def test_repeated_rows_of_a_sparse_gradient_are_added(ids):
    table = tf.Variable(RNG.normal(size=(10, 3)).astype("f"))
    sparse = gradient_of_rows(table, ids)
    assert isinstance(sparse, tf.IndexedSlices)
    dense = tf.convert_to_tensor(sparse).numpy()
    np.testing.assert_allclose(ops.matrix_of_sums([sparse]), oracle([dense]), rtol=1e-6)
    np.testing.assert_allclose(ops.grad_sums([sparse], [table]).wait()[0], oracle([dense], [table.numpy()]), rtol=1e-6)
    for compiled in (False, True):
        inside = tf.function(
            lambda: ops.traced_sums([gradient_of_rows(table, ids), None], [table, table]), jit_compile=compiled
        )()
        np.testing.assert_allclose(inside[:, :1], oracle([dense], [table.numpy()]), rtol=1e-6)
        assert np.isnan(inside[:, 1]).all()


def test_slices_without_a_shape_take_that_of_their_weight():
    """Zeros are counted in the rows that are left out; without the weight nobody knows how many these are."""
    slices, weight = tf.IndexedSlices(tf.ones((2, 3)), tf.constant([1, 1])), tf.ones((5, 3))
    dense = np.zeros((5, 3))
    dense[1] = 2.0
    np.testing.assert_array_equal(ops.grad_sums([slices], [weight]).wait()[0], oracle([dense], [np.ones((5, 3))]))
    with pytest.raises(
        ArgumentError, match=r"^IndexedSlices with values of shape \(2, 3\) and no dense_shape were given"
    ):
        ops.as_rows(slices, (0,))


def test_a_variable_is_read_in_place_and_what_was_read_stays():
    variable = tf.Variable(RNG.normal(size=(64, 64)).astype("f"))
    held = ops.read(variable)
    assert np.asarray(held).ctypes.data == np.asarray(ops.read(variable)).ctypes.data
    before = held.numpy().copy()
    assert before is not held.numpy()

    @tf.function(jit_compile=True)
    def compiled():
        variable.assign_add(tf.ones_like(variable))

    compiled()
    variable.assign_sub(0.5 * tf.ones_like(variable))
    variable.scatter_sub(tf.IndexedSlices(tf.ones((1, 64)), [3]))
    variable.scatter_sub(tf.IndexedSlices(tf.ones((1, 64)), [3]))
    np.testing.assert_array_equal(held.numpy(), before)
    assert not np.array_equal(variable.numpy(), before)


def test_variables_of_keras_and_norms_by_name():
    keras = pytest.importorskip("keras")
    w = RNG.normal(size=(3, 4)).astype("f")
    for array in (tf.constant(w), tf.Variable(w), keras.Variable(w)):
        assert ops_of(array) is ops
        np.testing.assert_allclose(normkit.norm(array, "l2", per=1), np.linalg.norm(w, axis=0), rtol=1e-6)
        np.testing.assert_allclose(normkit.norm(array, "l1", per=(1, 0)), np.abs(w).T, rtol=1e-6)
        np.testing.assert_allclose(normkit.norm(array, "spectral"), np.linalg.norm(w, 2), rtol=1e-6)
        assert normkit.stats(array).count == 12


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (
            lambda: tf.constant([1j]),
            r"a tensor of complex128 of shape \(1,\) was given; norms here are of real",
        ),
        (lambda: tf.constant(["a"]), r"a tensor of string of shape \(1,\) was given; a tensor of numbers was expected"),
        (
            lambda: tf.ragged.constant([[1.0], [2.0, 3.0]]),
            r"a RaggedTensor of shape \(2, None\) was given; pass x",
        ),
        (
            lambda: tf.sparse.from_dense([1.0]),
            r"a SparseTensor of shape \(1,\) was given; pass tf",
        ),
    ],
)
def test_what_has_no_real_numbers_is_refused(array, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        normkit.norm(array())


def test_a_symbolic_tensor_is_refused():
    @tf.function(autograph=False)
    def inside(x):
        return normkit.norm(x)

    with pytest.raises(ArgumentError, match=r"a symbolic tensor of shape \(3,\) was given, which has no values"):
        inside(tf.ones(3))
