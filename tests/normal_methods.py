"""What every method of `normalize` must hold in every library: one row per method, one class of properties for all.

A test file makes a `Library` of its framework and derives from `Values` and `Derivatives`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import normal
from normal_exact import directions, spectral, standard
from normkit.normalize import norm_except_dim, normalized, spectral_normalized, spectral_start, standardized

GAIN, EPS, ITERATIONS = 3.0, 0.04, 1
SHAPE = (4, 3, 5)
PERS = ["tensor", 0, 1, -1, (0, 2)]
LIMIT = {"float64": 1e-12, "float32": 3e-6, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def kept_of(per, rank):
    """The kept axes as numbers from 0."""
    return () if per == "tensor" else tuple(axis % rank for axis in np.atleast_1d(per))


# -- the methods --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """One method as a function of one weight, its oracle, and its derivative where a group has nothing to divide by."""

    name: str
    apply: Callable
    exact: Callable
    at_zero: Callable  # (dL/dw^ of one group) -> dL/dw of it
    by_group: bool = True  # groups do not see each other
    scale_free: bool = True


def weight(p):
    def apply(w, per=0):
        length = norm_except_dim(w, per, p=p)
        return normalized(w, length * 0 + GAIN, per, p=p)

    return Method(f"weight p={p}", apply, lambda w, kept: normal.weight(w, GAIN, kept, p), lambda up: GAIN * up)


def standardizing(**more):
    gain, eps = more.get("gain"), more.get("eps", 0.0)

    def at_zero(up):
        return (up - up.mean()) / (np.sqrt(eps) or 1.0) * (1.0 if gain is None else gain / np.sqrt(up.size))

    return Method(
        f"standardized {more or ''}".strip(),
        lambda w, per=0: standardized(w, per, **more),
        lambda w, kept: standard(w, kept, **more),
        at_zero,
        scale_free=not eps,
    )


SPECTRAL = Method(
    "spectral",
    lambda w, per=0: spectral_normalized(w, spectral_start(w, per), per, iterations=ITERATIONS)[0],
    lambda w, kept: spectral(w, kept, ITERATIONS),
    lambda up: up,
    by_group=False,
)
METHODS = [*map(weight, (2, 1, 3, np.inf)), standardizing(), standardizing(gain=GAIN), standardizing(eps=EPS), SPECTRAL]
FEW = [METHODS[0], METHODS[2], METHODS[5], SPECTRAL]  # that use every fine operation


def said(value):
    return value.name if isinstance(value, Method) else str(value)


# -- the properties -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Library:
    """How a framework makes arrays, gives them back, differentiates a function of one array, and compiles one."""

    array: Callable  # (NumPy array, name of a dtype) -> array
    numpy: Callable  # array -> float64 NumPy array
    dtype: Callable  # array -> name of its dtype
    grad: Callable | None = None  # (function to a scalar, array) -> gradient, to be differentiated again
    total: Callable | None = None  # (array, NumPy array) -> scalar: the sum of their products
    compiled: Callable | None = None
    halves: tuple[str, ...] = ("float16", "bfloat16")
    run: Callable = lambda function: function  # how it is called where nothing else is said


class Properties:
    """`method` stands for each method, `by_group` and `scale_free` for each that is so; a class may take fewer."""

    library: Library
    methods = METHODS
    pers = PERS
    dtypes = ("float64", "float32")

    def pytest_generate_tests(self, metafunc):
        cases = {
            "method": self.methods,
            "by_group": [method for method in self.methods if method.by_group],
            "few": [method for method in self.methods if method in FEW],
            "scale_free": [method for method in self.methods if method.scale_free],
            "per": self.pers,
            "dtype": self.dtypes,
        }
        for name, values in cases.items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values, ids=said)


def drawn(shape=SHAPE, seed=1):
    return np.random.default_rng(seed).normal(size=shape)


def assert_near(found, expected, dtype="float64", scale=None):
    """Within rounding of the largest entry, or of `scale`; NaN equals NaN."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    limit = LIMIT[dtype] * (np.nanmax(np.abs(expected), initial=0.0) if scale is None else scale)
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


class Values(Properties):
    """Without derivatives."""

    def of(self, method, w, per=0, dtype="float64"):
        """The result as float64, once it is an array of the same library, dtype and shape, and w is as it was."""
        given = self.library.array(w, dtype)
        before = self.library.numpy(given).copy()
        result = self.library.run(lambda x: method.apply(x, per))(given)
        assert isinstance(result, type(given))
        assert self.library.dtype(result) == dtype
        np.testing.assert_array_equal(self.library.numpy(given), before)
        assert self.library.numpy(result).shape == np.shape(w)
        return self.library.numpy(result)

    def test_as_the_oracle(self, method, per, dtype):
        w = drawn().astype(dtype)
        assert_near(self.of(method, w, per, dtype), method.exact(w, kept_of(per, 3)), dtype)

    @pytest.mark.parametrize("scale", [1e-23, 1e25])
    def test_out_of_reach_of_squares(self, method, scale):
        w = (drawn() * scale).astype(np.float32)
        assert_near(self.of(method, w, 0, "float32"), method.exact(w, (0,)), "float32")

    def test_a_power_of_two_changes_no_bit(self, scale_free):
        w = drawn()
        np.testing.assert_array_equal(self.of(scale_free, 8 * w), self.of(scale_free, w))

    def test_groups_do_not_see_each_other(self, by_group):
        w, order = drawn(), [2, 0, 3, 1]
        assert_near(self.of(by_group, w[order]), self.of(by_group, w)[order])

    def test_half_precision_is_worked_out_in_more(self, method):
        for dtype in self.library.halves:
            w = self.library.numpy(self.library.array(200 * drawn(), dtype))  # squares beyond float16
            assert_near(self.of(method, w, 0, dtype), method.exact(w, (0,)), dtype)

    @pytest.mark.parametrize("zero", [0.0, -0.0])
    def test_zero_gives_zero(self, method, zero):
        assert not self.of(method, np.full((3, 4), zero)).any()

    def test_a_zero_group_beside_others(self, by_group):
        w = drawn()
        w[1] = 0
        assert_near(self.of(by_group, w), by_group.exact(w, (0,)))

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,)], ids=str)
    def test_nothing_gives_nothing(self, method, shape):
        for per in ("tensor", 0):
            self.of(method, np.zeros(shape), per)

    def test_nan_stays_in_its_group(self, method):
        w = drawn()
        w[1, 0, 0] = np.nan
        there = np.isnan(self.of(method, w))
        assert there[1].all()
        assert there[[0, 2, 3]].all() != method.by_group

    @pytest.mark.parametrize("p", [2, 1, 3, np.inf])
    def test_where_g_is_the_length_v_comes_back_bit_by_bit(self, p, per):
        v = self.library.array(drawn().astype(np.float32), "float32")
        g = norm_except_dim(v, per, p=p)
        np.testing.assert_array_equal(self.library.numpy(normalized(v, g, per, p=p)), self.library.numpy(v))
        assert_near(self.library.numpy(g), normal.lengths(self.library.numpy(v), kept_of(per, 3), p), "float32")


class Derivatives(Properties):
    """First and second ones, and compiled functions."""

    def grad(self, method, w, up, per=0):
        lib = self.library
        return lib.numpy(lib.grad(lambda x: lib.total(method.apply(x, per), up), lib.array(w, "float64")))

    def second(self, method, w, up, way, per=0):
        """The derivative of the gradient along `way`."""
        lib = self.library

        def slope(x):
            return lib.total(lib.grad(lambda y: lib.total(method.apply(y, per), up), x), way)

        return lib.numpy(lib.grad(slope, lib.array(w, "float64")))

    def test_the_gradient_is_that_of_the_oracle(self, by_group):
        w, up, way = drawn(), drawn(seed=2), drawn(seed=3)
        h = 1e-5
        ahead, behind = (np.sum(by_group.exact(w + step * way, (0,)) * up) for step in (h, -h))
        assert np.sum(self.grad(by_group, w, up) * way) == pytest.approx((ahead - behind) / (2 * h), rel=1e-7)

    def test_the_second_derivative_is_that_of_the_gradient(self, by_group):
        w, up, way = drawn(), drawn(seed=2), drawn(seed=3)
        h = 1e-5
        ahead, behind = (self.grad(by_group, w + step * way, up) for step in (h, -h))
        assert_near(self.second(by_group, w, up, way), (ahead - behind) / (2 * h), scale=1e4)

    def test_the_spectral_gradient_takes_u_and_v_as_constants(self):
        w, up = drawn((4, 5)), drawn((4, 5), seed=2)
        u, v, sigma = directions(w, (0,), ITERATIONS)
        expected = (up - np.sum(up * w) / sigma * np.outer(u, v)) / sigma
        assert_near(self.grad(SPECTRAL, w, up), expected, scale=10)

    def test_at_zero_derivatives_have_their_closed_form(self, method):
        w, up, way = np.zeros((3, 4)), drawn((3, 4)), drawn((3, 4), seed=2)
        expected = np.array([method.at_zero(row) for row in up])
        assert_near(self.grad(method, w, up), expected, scale=100)
        assert_near(self.second(method, w, up, way), w, scale=1)

    def test_a_zero_group_leaves_the_others_their_derivatives(self, by_group):
        w, up = drawn(), drawn(seed=2)
        whole = self.grad(by_group, w, up)
        w[1] = 0
        found = self.grad(by_group, w, up)
        assert_near(found[[0, 2, 3]], whole[[0, 2, 3]])
        assert_near(found[1], by_group.at_zero(up[1]), scale=100)
        assert np.isfinite(self.second(by_group, w, up, drawn(seed=3))).all()

    def test_gradients_in_closed_form_are_those_of_the_library(self):
        from normkit.normalize import gradients

        lib, up = self.library, drawn()
        v = drawn(seed=2)
        v[1] = 0
        g = drawn((4, 1, 1), seed=3)
        length = np.where(normal.lengths(v, (0,)) == 0, 1.0, normal.lengths(v, (0,)))
        made = [lib.array(x, "float64") for x in (up, v, g, length)]
        by_v, by_g = map(lib.numpy, gradients(*made))
        assert_near(by_v, lib.numpy(lib.grad(lambda x: lib.total(normalized(x, made[2]), up), made[1])))
        assert_near(by_g, lib.numpy(lib.grad(lambda x: lib.total(normalized(made[1], x), up), made[2])))
        for found, expected in zip((by_v, by_g), normal.gradients(up, v, g, (0,)), strict=True):
            assert_near(found, expected)

    def test_compiled_it_is_the_same(self, few):
        lib, w = self.library, drawn()
        w[1] = 0
        found = lib.compiled(lambda x: few.apply(x, 0))(lib.array(w, "float64"))
        assert_near(lib.numpy(found), few.exact(w, (0,)))
