"""Norms by name against the oracle: every kind, every dtype, sizes to 10^7, and the traps that others fall into."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from normkit.errors import ArgumentError
from normkit.norms import KINDS, NORMS, canonical, from_sums, norm, stats
from normkit.sums import to_matrix

ENTRYWISE = tuple(NORMS)
HALVES = ("float16", "bfloat16")


def as_dtype(values, dtype):
    if dtype == "bfloat16":
        return np.asarray(values).astype(pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16)
    return np.asarray(values).astype(dtype)


def assert_norm(x, kind, per="tensor", relative=1e-12):
    """Right within `relative` of itself; mean and std within that of the rms, since they cancel."""
    expected = reference.norm_of(x, kind)
    scale = reference.norm_of(x, "rms") if kind in ("mean", "std") else expected
    reference.assert_close(norm(x, kind, per), expected, relative * abs(scale), kind)


def test_assert_norm_can_fail():
    with pytest.raises(AssertionError, match="l2 is"):
        reference.assert_close(norm([3.0, 4.0]), 5.0 + 1e-9, 1e-12, "l2")


def draw(shape, length):
    rng = np.random.default_rng(length)
    return {
        "normal": lambda: rng.standard_normal(length),
        "constant": lambda: np.full(length, 0.1),
        "heavy-tailed": lambda: rng.standard_cauchy(length),
        "shifted": lambda: 5.0 + rng.standard_normal(length),
    }[shape]()


@pytest.mark.parametrize("length", [3, 1000, 60_000, 1_000_000, 10_000_000])
@pytest.mark.parametrize("shape", ["normal", "constant", "heavy-tailed", "shifted"])
def test_accuracy_in_float32(shape, length):
    x = draw(shape, length).astype(np.float32)
    for kind in ("l1", "l2", "mean", "rms", "linf"):
        assert_norm(x, kind)


@pytest.mark.parametrize("dtype", ["float64", *HALVES])
@pytest.mark.parametrize("shape", ["normal", "constant"])
def test_accuracy_in_other_dtypes(shape, dtype):
    x = as_dtype(draw(shape, 300_000), dtype)
    for kind in ("l1", "l2", "mean"):
        assert_norm(x, kind)


@pytest.mark.parametrize("length", [10, 1000, 1_000_000])
@pytest.mark.parametrize("shape", ["normal", "heavy-tailed", "shifted"])
def test_std(shape, length):
    assert_norm(draw(shape, length), "std", relative=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e20, 1e-30, 255.9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 3, 1000, 1_000_003])
def test_the_std_of_a_constant_is_exactly_0(value, dtype, length):
    assert norm(np.full(length, value, dtype), "std") == 0.0


def test_the_population_std_is_meant():
    assert norm([1.0, 3.0], "std") == 1.0


# --- the traps -------------------------------------------------------------------------------------------------------

TRAPS = {
    "squares beyond float32": (lambda: np.array([1e20] * 4, np.float32), 2e20),
    "squares below float32": (lambda: np.array([1e-30] * 4, np.float32), 2e-30),
    "squares beyond float16": (lambda: np.array([300] * 4, np.float16), 600.0),
    "sum beyond float16": (lambda: np.ones(70_000, np.float16), math.sqrt(70_000)),
    "sum beyond bfloat16": (lambda: as_dtype(np.ones(70_000), "bfloat16"), math.sqrt(70_000)),
    "squares beyond float64": (lambda: np.array([3e200, -4e200]), 5e200),
    "squares below float64": (lambda: np.array([3e-200, -4e-200]), 5e-200),
    "largest float64": (lambda: np.array([1.7e308]), 1.7e308),
    "smallest float64": (lambda: np.array([5e-324]), 5e-324),
    "integers": (lambda: np.array([3_000_000_000, 4_000_000_000]), 5e9),
    "int8": (lambda: np.array([-128] * 4, np.int8), 256.0),
}


@pytest.mark.parametrize("name", TRAPS)
def test_l2_neither_overflows_nor_vanishes(name):
    make, expected = TRAPS[name]
    x = make()
    stored_exactly = float(np.abs(x.astype(np.float64)).max()) / float(np.abs(np.asarray(x, np.float64)).max())
    reference.assert_close(norm(x), expected * stored_exactly, 1e-7 * expected, "l2")
    if x.dtype != np.float32:
        assert norm(x) == pytest.approx(expected, rel=1e-15, abs=0)


def test_only_the_rows_that_need_it_are_scaled():
    x = np.array([[3e200, 4e200], [3.0, 4.0], [3e-200, 4e-200], [0.0, 0.0], [math.inf, 1.0], [math.nan, 1e200]])
    np.testing.assert_allclose(norm(x, "l2", per=0), [5e200, 5.0, 5e-200, 0.0, math.inf, math.nan], rtol=1e-15)
    np.testing.assert_allclose(norm(x[:3], "rms", per=0) * math.sqrt(2), [5e200, 5.0, 5e-200], rtol=1e-15)
    np.testing.assert_allclose(norm(x[:3], "std", per=0), [5e199, 0.5, 5e-201], rtol=1e-12)


def test_one_nan_and_one_infinity_among_10_million():
    x = np.random.default_rng(0).standard_normal(10_000_000, dtype=np.float32)
    x[7_654_321] = np.inf
    assert [norm(x, kind) for kind in ("l1", "l2", "linf", "nonfinite")] == [math.inf, math.inf, math.inf, 1.0]
    x[1_234_567] = np.nan
    assert norm(x, "nonfinite") == 2.0
    assert all(math.isnan(norm(x, kind)) for kind in ("l1", "l2", "linf", "mean", "rms", "std"))


def test_without_values():
    for kind in ("l1", "l2", "linf", "zeros", "nonfinite"):
        assert norm([], kind) == 0.0
    for kind in ("mean", "rms", "std"):
        assert math.isnan(norm([], kind))
    np.testing.assert_array_equal(norm(np.zeros((3, 0)), "l2", per=0), np.zeros(3))
    np.testing.assert_array_equal(norm(np.zeros((3, 0)), "rms", per=0), [math.nan] * 3)
    assert norm(np.zeros((0, 3)), "l2", per=0).shape == (0,)


def test_minus_zero_is_a_zero():
    assert norm([0.0, -0.0, 1.0], "zeros") == 2.0


@pytest.mark.parametrize("kind", ENTRYWISE)
@settings(deadline=None)  # the first call may compile
@given(
    x=hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3), elements={"min_value": -100, "max_value": 100})
)
def test_every_kind_of_any_array(kind, x):
    assert_norm(x, kind, relative=1e-7 if kind == "std" else 1e-12)


@settings(deadline=None)  # the first call may compile
@given(
    hnp.arrays(np.float64, st.integers(1, 50), elements=st.floats(-10, 10).filter(lambda v: v == 0 or abs(v) > 1e-3)),
    st.integers(-30, 30),
)
def test_a_power_of_two_scales_the_norm_exactly(x, exponent):
    for kind in ("l1", "linf", "mean"):
        assert norm(np.ldexp(x, exponent), kind) == math.ldexp(norm(x, kind), exponent)


# --- per -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENTRYWISE)
@pytest.mark.parametrize(
    ("per", "kept"), [(0, (0,)), (-1, (2,)), ((2, 0), (2, 0)), ((0, 1, 2), (0, 1, 2)), ([1], (1,))]
)
def test_kept_axes(kind, per, kept):
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    found = norm(x, kind, per)
    front = np.moveaxis(x, kept, range(len(kept)))
    assert found.shape == front.shape[: len(kept)]
    for place in np.ndindex(found.shape):
        reference.assert_close(found[place], reference.norm_of(front[place], kind), 1e-7 if kind == "std" else 1e-12)


def test_the_result_is_a_float_or_an_array():
    assert type(norm(np.ones(3, np.float32))) is float
    assert norm(np.ones((3, 2), np.float16), per=0).dtype == np.float64


def test_torch_tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = torch.nn.Parameter(torch.randn(4, 3, 2).bfloat16())
    assert norm(x) == reference.norm_of(x, "l2")
    np.testing.assert_allclose(norm(x, "l1", per=(1,)), np.abs(reference.as_float64(x)).sum((0, 2)), rtol=1e-14)
    assert norm(x[0].float(), "spectral") == pytest.approx(np.linalg.norm(reference.as_float64(x[0]), 2), rel=1e-12)
    huge = torch.tensor([3e200, 4e200], dtype=torch.float64)
    assert norm(huge) == pytest.approx(5e200)


# --- Stats and sums --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENTRYWISE)
def test_a_stats_gives_the_same_norm(kind):
    x = np.random.default_rng(0).standard_normal(1000)
    assert norm(stats(x), kind) == norm(x, kind)
    assert stats(stats(x)) is not None
    assert from_sums(to_matrix([stats(x), None]), [1000, 1000], kind)[0] == norm(x, kind)


def test_a_column_of_nan_gives_nan():
    for kind in ENTRYWISE:
        assert math.isnan(from_sums(np.full((6, 1), np.nan), [3], kind)[0])


def test_sums_of_any_further_shape():
    sums = np.arange(1.0, 6 * 4 * 2 + 1).reshape(6, 4, 2)
    np.testing.assert_array_equal(from_sums(sums, np.array([2, 4]), "rms"), np.sqrt(sums[2] / [2, 4]))


# --- names and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_its_own(kind):
    assert canonical(kind) == kind
    assert canonical(kind.upper()) == kind


@pytest.mark.parametrize("alias", ["fro", "frobenius", "Frobenius"])
def test_other_names_of_l2(alias):
    assert canonical(alias) == "l2"
    assert norm([3.0, 4.0], alias) == 5.0


WRONG_KINDS = {
    "spectrl": r"'spectrl' is not the name of a norm; did you mean 'spectral'\? the names are l1, l2, .* and nuclear",
    "max": r"'max' is not the name of a norm; did you mean 'linf'\?",
    "l22": r"did you mean 'l2'\?",
    "xyz": r"'xyz' is not the name of a norm; the names are l1",
    2: r"kind is 2, and such a number means different norms for vectors and matrices: say 'l2' or 'spectral'",
    1: r"kind is 1, .* say 'l1'",
    math.inf: r"kind is inf, .* say 'linf'",
    0.5: r"kind is 0.5, .* say one by its name",
    None: r"kind is None; it must be the name of a norm: l1",
}


@pytest.mark.parametrize("kind", WRONG_KINDS)
def test_a_kind_that_is_none(kind):
    with pytest.raises(ArgumentError, match=WRONG_KINDS[kind]):
        norm(np.ones(3), kind)


class Model:
    """What every framework's model has."""

    def parameters(self): ...


WRONG_CALLS = {
    "operator norm of rows": (
        lambda: norm(np.eye(3), "spectral", per=0),
        r"spectral was asked with per=0; it is a norm",
    ),
    "operator norm from sums": (
        lambda: from_sums(np.ones((6, 1)), [1], "nuclear"),
        "nuclear does not follow from sums; it needs the array: the kinds that do are l1",
    ),
    "operator norm of Stats": (lambda: norm(stats([1.0]), "spectral"), "spectral does not follow from sums"),
    "axes of Stats": (lambda: norm(stats([1.0]), "l2", per=0), "per is 0, but a Stats has no axes"),
    "complex": (lambda: norm(np.ones(2, complex)), "an array of complex128 was given; norms here are of real numbers"),
    "an array as kind": (
        lambda: norm("l2", np.ones((9, 9))),
        r"kind is <ndarray of shape \(9, 9\)>; it must be the name",
    ),
    "an array as per": (
        lambda: norm(np.ones(3), "l2", per=np.ones(2)),
        r"per is <ndarray of shape \(2,\)>; it must be",
    ),
    "a model": (lambda: norm(Model()), r"a .*Model was given; for the norms of a model use nk\.norms\(model\)"),
    "text": (lambda: norm("weights"), "an array was expected, of numpy, torch, jax, tensorflow, and a str was given"),
    "axis too large": (
        lambda: norm(np.ones((2, 3)), "l2", per=2),
        r"per is 2, and an array of shape \(2, 3\) has no axis 2",
    ),
    "out of an array": (
        lambda: norm(np.ones((2, 3)), "l2", per="out"),
        r"per is 'out', but an array of shape \(2, 3\)",
    ),
}


@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_call(name):
    call, sentence = WRONG_CALLS[name]
    with pytest.raises(ArgumentError, match=sentence):
        call()
