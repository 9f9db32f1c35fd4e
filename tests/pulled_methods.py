"""What every term, step and decay must hold in every library: one class of properties for all alike.

A row of `pulled_rows` enrols one. A test file makes a `Library` of its framework and derives from `Terms`,
`TermDerivatives`, `CompiledTerms`, `Steps`, `Limits` and `CompiledSteps`.
"""

from __future__ import annotations

import numpy as np
import pytest

import pulled
from normal_methods import Library, assert_near, drawn, kept_of, said
from pulled_rows import DECAYS, FREE, LIMITS, leading, like

SHAPE, PERS = (4, 3, 5), ["tensor", 0, -1, (0, 2)]
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


class Rows:
    """`row` stands for each row of `rows`; a class may take fewer of all."""

    library: Library
    rows: list
    pers: list = PERS
    dtypes: tuple = ("float64", "float16")  # the others are tried with torch

    def pytest_generate_tests(self, metafunc):
        cases = {"row": self.rows, "per": self.pers, "dtype": self.dtypes}
        cases["by_group"] = [row for row in self.rows if getattr(row, "by_group", False)]
        for name, values in cases.items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, values, ids=lambda value: getattr(value, "name", None) or said(value))

    def made(self, w, dtype="float64"):
        """The library's array, and its numbers as float64."""
        array = self.library.array(w, dtype)
        return array, self.library.numpy(array)


class Terms(Rows):
    def of(self, row, w, per=0, dtype="float64"):
        """The value, once it is one number of the right dtype and w is as it was."""
        array, before = self.made(w, dtype)
        make, start = lambda x: self.library.array(x, dtype), leading(w, per)
        value = self.library.run(lambda x: row.apply(x, per, make, start))(array)
        assert self.library.dtype(value) == (dtype if dtype in ("float64", "float32") else "float32")
        np.testing.assert_array_equal(self.library.numpy(array), before)
        assert self.library.numpy(value).shape == ()
        return float(self.library.numpy(value)), before

    def test_as_the_oracle(self, row, per, dtype):
        found, w = self.of(row, drawn(SHAPE), per, dtype)
        reference = self.library.numpy(self.library.array(like(w), dtype))
        with pytest.MonkeyPatch.context() as patch:  # the reference as it is once rounded
            patch.setattr("pulled_rows.OTHER", reference)
            expected = row.exact(w, kept_of(per, 3))
        assert found == pytest.approx(expected, rel=1e-12 if dtype == "float64" else 3e-6)

    def test_a_power_of_two_comes_out(self, row):
        if row.power is not None:
            assert self.of(row, 8 * drawn(SHAPE))[0] == 8**row.power * self.of(row, drawn(SHAPE))[0]

    def test_in_whatever_order_the_units_are(self, row):
        if row.name not in ("toward", "spectral"):
            assert self.of(row, drawn(SHAPE)[[2, 0, 3, 1]])[0] == pytest.approx(
                self.of(row, drawn(SHAPE))[0], rel=1e-12
            )

    @pytest.mark.parametrize("shape", [(3, 4), (0, 3), (3, 0), ()], ids=str)
    def test_zero_and_nothing(self, row, shape):
        zero = np.zeros(shape)
        for per in ("tensor", 0) if shape else ("tensor",):
            assert self.of(row, zero, per)[0] == pytest.approx(row.exact(zero, kept_of(per, len(shape))), rel=1e-12)

    def test_nan_is_seen(self, row):
        w = drawn(SHAPE)
        w[1, 0, 0] = np.nan
        assert np.isnan(self.of(row, w)[0])


class TermDerivatives(Rows):
    def grad(self, row, w, per=0, dtype="float64"):
        lib, make, start = self.library, lambda x: self.library.array(x, dtype), leading(w, per)
        return lib.numpy(lib.grad(lambda x: row.apply(x, per, make, start), make(w)))

    def second(self, row, w, way, per=0):
        """The derivative of the gradient along `way`."""
        lib, make, start = self.library, lambda x: self.library.array(x, "float64"), leading(w, per)

        def slope(x):
            return lib.total(lib.grad(lambda y: row.apply(y, per, make, start), x), way)

        return lib.numpy(lib.grad(slope, make(w)))

    def test_the_gradient_in_closed_form(self, row, per):
        w = drawn(SHAPE)
        assert_near(self.grad(row, w, per), row.gradient(w, kept_of(per, 3)), scale=100)

    def test_the_second_derivative_is_that_of_the_gradient(self, row):
        if row.second:
            w, way, h = drawn(SHAPE), drawn(SHAPE, seed=3), 1e-5
            ahead, behind = (row.gradient(w + step * way, (0,)) for step in (h, -h))
            assert_near(self.second(row, w, way), (ahead - behind) / (2 * h), scale=1e5)

    def test_at_zero_both_are_finite_and_the_first_is_the_subgradient_0(self, row):
        zero, way = np.zeros((3, 4)), drawn((3, 4), seed=3)
        first = self.grad(row, zero)
        np.testing.assert_array_equal(first, -like(zero) if row.name == "toward" else 0)
        assert np.isfinite(self.second(row, zero, way)).all()

    def test_a_zero_group_leaves_the_others_their_derivatives(self, row):
        w = drawn(SHAPE)
        w[1] = 0
        assert_near(self.grad(row, w), row.gradient(w, (0,)), scale=100)
        assert np.isfinite(self.second(row, w, drawn(SHAPE, seed=3))).all()


class CompiledTerms(Rows):
    def test_compiled_it_is_the_same(self, row):
        w, make = drawn(SHAPE), lambda x: self.library.array(x, "float64")
        other = make(leading(w, 0) if row.name == "spectral" else like(w))
        found = self.library.compiled(lambda x: row.apply(x, 0, lambda _: other, None))(make(w))
        assert self.library.numpy(found) == pytest.approx(row.exact(w, (0,)), rel=1e-12)


FUNCTIONS: dict = {}  # what `library.run` has made of a row


class Steps(Rows):
    def function(self, row, per, dtype, times):
        """The row as a function of w, one for all calls: it may be compiled."""
        key = (type(self), row.name, str(per), dtype, times)
        if key not in FUNCTIONS:
            make = lambda x: self.library.array(x, dtype)  # noqa: E731
            FUNCTIONS[key] = self.library.run(lambda x: row.apply(x, per, make, times))
        return FUNCTIONS[key]

    def of(self, row, w, per=0, dtype="float64", times=1.0):
        """The result as float64, once it is an array of the same library, dtype and shape and w is as it was."""
        array, before = self.made(w, dtype)
        result = self.function(row, per, dtype, times)(array)
        assert self.library.dtype(result) == dtype
        np.testing.assert_array_equal(self.library.numpy(array), before)
        found = self.library.numpy(result)
        assert found.shape == np.shape(w)
        return found

    def exact(self, row, w, per, dtype, times=1.0):
        """The oracle, for w and what goes with it as they are once rounded."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pulled_rows.OTHER", self.made(like(w), dtype)[1])
            return row.exact(self.made(w, dtype)[1], kept_of(per, np.ndim(w)), times)

    def test_as_the_oracle(self, row, per, dtype):
        w = drawn(SHAPE)
        expected = self.exact(row, w, per, dtype)
        limit = max(row.margin * 2 * EPSILON[dtype], 1e-12) * np.abs(expected).max()
        np.testing.assert_allclose(self.of(row, w, per, dtype), expected, rtol=0, atol=limit)

    def test_in_whatever_order_the_groups_are(self, by_group):
        w, order = drawn(SHAPE), [2, 0, 3, 1]
        if "update" not in by_group.name and "reference" not in by_group.name and by_group.name != "l2":
            np.testing.assert_array_equal(self.of(by_group, w[order]), self.of(by_group, w)[order])

    def test_a_power_of_two_comes_out(self, row):
        if row not in DECAYS or row in FREE:
            w = drawn(SHAPE)
            np.testing.assert_array_equal(self.of(row, 8 * w, times=8.0), 8 * self.of(row, w))

    @pytest.mark.parametrize("shape", [(3, 4), (0, 3), (3, 0), ()], ids=str)
    def test_zero_and_nothing(self, row, shape):
        zero = np.zeros(shape)
        for per in ("tensor", 0) if shape else ("tensor",):
            expected = self.exact(row, zero, per, "float64")
            np.testing.assert_allclose(self.of(row, zero, per), expected, rtol=0, atol=1e-15)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite_stays_in_its_group(self, by_group, bad):
        w = drawn(SHAPE)
        whole = self.of(by_group, w)
        w[1, 0, 0] = bad
        with np.errstate(invalid="ignore"):
            found = self.of(by_group, w)
        np.testing.assert_array_equal(found[[0, 2, 3]], whole[[0, 2, 3]])
        assert not np.isfinite(found[1, 0, 0])


class Limits(Steps):
    rows = LIMITS

    def test_no_length_beyond_its_limit(self, row, per, dtype):
        for scale in (0.1, 1.0, 50.0):
            found = self.of(row, scale * drawn(SHAPE), per, dtype)
            assert row.within(row.measure(found, kept_of(per, 3)), 2 * EPSILON[dtype]).all() or scale == 0.1
            again = self.of(row, found, per, dtype)
            np.testing.assert_array_equal(again, found)

    def test_what_satisfies_comes_back_bit_by_bit(self, row, dtype):
        w = drawn(SHAPE)
        w = w * np.array([0.1, 0.7, 0.99, 0.0])[:, None, None] * 1.5 / pulled.lengths(w, (0,))
        if row.name == "spectral_cap":
            w = w / 3
        elif row.name != "max_norm":
            w = self.of(row, w, dtype=dtype)
        np.testing.assert_array_equal(self.of(row, w, dtype=dtype), self.made(w, dtype)[1])

    def test_where_nothing_is_finite_all_stays(self, row):
        w = drawn(SHAPE)
        w[:, 0, :2] = np.nan, np.inf
        np.testing.assert_array_equal(self.of(row, w), w)


class CompiledSteps(Rows):
    def test_compiled_it_is_the_same(self, row):
        w, make = 2 * drawn(SHAPE), lambda x: self.library.array(x, "float64")
        other = make(like(w))
        row.apply(make(w), 0, lambda _: other, 1.0)
        found = self.library.compiled(lambda x: row.apply(x, 0, lambda _: other, 1.0))(make(w))
        assert_near(self.library.numpy(found), row.exact(w, (0,), 1.0), scale=40)
