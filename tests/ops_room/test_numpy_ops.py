"""NumPy arrays of any dtype and any strides, read in place where their memory is dense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from normkit.errors import ArgumentError
from normkit.norms import norm, stats
from normkit.ops import numpy as ops
from normkit.ops import ops_of

FLOATS = (np.float64, np.float32, np.float16)
OTHERS = (
    np.bool_,
    np.int8,
    np.uint8,
    np.int16,
    np.int32,
    np.uint32,
    np.int64,
    np.longdouble,
    ">f4",
    ">f8",
    "<i2",
    ">i4",
)


def assert_sums_of(x):
    reference.assert_sums(ops.matrix_of_sums([x])[:, 0], x)


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("dtype", [*FLOATS, *OTHERS])
def test_any_dtype(dtype):
    assert_sums_of((numbers(5, 7) * 20).astype(dtype))


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_dtypes_of_ml_dtypes(name):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    x = (numbers(300) * 3).astype(getattr(ml_dtypes, name))
    assert_sums_of(x)
    assert_sums_of(x[::-3])


VIEWS = {
    "transposed": lambda x: x.T,
    "Fortran order": np.asfortranarray,
    "axes moved": lambda x: np.moveaxis(x, 0, 1),
    "every second": lambda x: x[::2, :, ::3],
    "reversed": lambda x: x[::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], (9, *x.shape[1:])),
    "one axis of length 1": lambda x: x[:, :1],
    "0-d": lambda x: x[1, 2, 3],
    "0-d array": lambda x: x[1, 2, 3, ...],
    "empty": lambda x: x[:0],
    "read only": lambda x: np.frombuffer(x.tobytes(), x.dtype),
    "not aligned": lambda x: np.frombuffer(b"!" + x.tobytes(), np.uint8)[1:].view(x.dtype),
    "matrix subclass": lambda x: np.matrix(x[0]),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_any_strides(dtype, view):
    assert_sums_of(VIEWS[view](numbers(6, 5, 7).astype(dtype)))


@pytest.mark.parametrize("view", ["transposed", "Fortran order", "axes moved", "one axis of length 1"])
def test_dense_memory_is_not_copied(view):
    x = VIEWS[view](numbers(6, 1, 7))
    assert ops._dense(x) is x


@settings(deadline=None)  # the first call may compile
@given(
    hnp.arrays(
        st.sampled_from(FLOATS),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
        elements={"allow_subnormal": False, "min_value": -1000, "max_value": 1000},
    ),
    st.data(),
)
def test_the_sums_of_any_array_any_way_round(x, data):
    view = x.transpose(data.draw(st.permutations(range(x.ndim))))
    steps = tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in view.shape)
    assert_sums_of(view[steps])


@settings(deadline=None)  # the first call may compile
@given(hnp.arrays(np.float32, st.integers(1, 3000), elements={"min_value": -8, "max_value": 8}), st.data())
def test_sums_of_parts_merge_to_the_whole(x, data):
    cut = data.draw(st.integers(0, x.size))
    a, b, whole = ops.matrix_of_sums([x[:cut], x[cut:], x]).T
    merged = a + b
    merged[3] = max(a[3], b[3])
    np.testing.assert_allclose(merged, whole, rtol=1e-13, atol=1e-12 * x.size)


@settings(deadline=None)  # the first call may compile
@given(hnp.arrays(np.float64, st.integers(1, 2000), elements={"min_value": -8, "max_value": 8}), st.randoms())
def test_a_permutation_changes_nothing_but_rounding(x, random):
    order = list(range(x.size))
    random.shuffle(order)
    first, second = ops.matrix_of_sums([x, x[order]]).T
    np.testing.assert_allclose(first, second, rtol=1e-13, atol=1e-12 * x.size)
    np.testing.assert_array_equal(first[3:], second[3:])


def test_the_callers_array_is_untouched():
    x = numbers(4, 5).T[::2]
    before = x.copy()
    ops.matrix_of_sums([x])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("kept", "shape"), [((), (1, 60)), ((0,), (3, 20)), ((2,), (5, 12)), ((2, 0), (15, 4)), ((0, 1, 2), (60, 1))]
)
def test_rows(kept, shape):
    x = numbers(3, 4, 5)
    rows = ops.as_rows(x, kept)
    assert rows.shape == shape
    expected = np.stack([np.moveaxis(x, kept, range(len(kept))).reshape(shape)[i] for i in range(shape[0])])
    np.testing.assert_array_equal(rows, expected)
    for column, row in zip(ops.sums_of_rows(rows).T, rows, strict=True):
        reference.assert_sums(column, row)


@pytest.mark.parametrize(
    ("shape", "kept", "rows"), [((0, 3), (0,), (0, 0)), ((0, 3), (1,), (3, 0)), ((0,), (), (1, 0))]
)
def test_rows_of_nothing(shape, kept, rows):
    found = ops.as_rows(np.zeros(shape), kept)
    assert found.shape == rows
    np.testing.assert_array_equal(ops.sums_of_rows(found), np.zeros((6, rows[0])))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_is_refused(dtype):
    with pytest.raises(ArgumentError, match=f"an array of {np.dtype(dtype).name} was given; norms here are of real"):
        ops.matrix_of_sums([np.ones(3, dtype)])


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([None]), np.array(["2020-01-01"], "M8[D]")])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(ArgumentError, match="was given; an array of numbers was expected"):
        ops.matrix_of_sums([values])


class Mine(np.ndarray):
    """A user's own kind of array."""


def test_the_drawer_is_found_by_the_arrays_classes():
    assert ops_of(np.zeros(2)) is ops
    assert ops_of(np.float32(1)) is ops
    assert ops_of(np.zeros(2).view(Mine)) is ops


@pytest.mark.parametrize(("thing", "name"), [("text", "str"), (None, "NoneType"), (object(), "object"), ({}, "dict")])
def test_no_drawer(thing, name):
    with pytest.raises(
        ArgumentError, match=f"an array was expected, of numpy, torch, jax, tensorflow, and a {name} was given"
    ):
        ops_of(thing)


@pytest.mark.parametrize("call", ["norm", "rows", "stats"])
def test_what_a_mask_hides_is_not_counted(call):
    x = np.ma.masked_array([[1.0, 2.0], [3.0, 4.0]], mask=[[False, True], [False, False]])
    calls = {"norm": norm, "rows": lambda x: norm(x, per=0), "stats": stats}
    with pytest.raises(
        ArgumentError, match=r"a masked array of shape \(2, 2\) with 1 masked entries was given; pass x"
    ):
        calls[call](x)


def test_a_mask_that_hides_nothing_is_no_matter():
    assert norm(np.ma.masked_array([3.0, 4.0], mask=False)) == 5.0
