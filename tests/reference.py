"""The float64 oracle: every sum and norm computed plainly and separately from the package.

Sums are Shewchuk's exact sums (`math.fsum`) for small arrays and extended-precision two-pass sums for large ones.
"""

from __future__ import annotations

import math

import numpy as np

ROWS = ("sum", "abs", "sq", "max", "zeros", "nonfinite", "dot")
EXACT_UP_TO = 100_000


def as_float64(x):
    """Any array or torch tensor as a float64 array, by the library's own conversion."""
    if hasattr(x, "detach"):
        dense = x.detach().to_dense() if x.layout.__repr__() != "torch.strided" else x.detach()
        return dense.double().numpy()
    return np.asarray(x).astype(np.float64)


def add_up(values):
    """The sum as a float64, IEEE for infinities and NaN."""
    values = np.asarray(values).ravel()
    if not np.isfinite(values).all():
        with np.errstate(invalid="ignore"):
            return float(np.sum(values, dtype=np.float64))
    if values.size <= EXACT_UP_TO:
        return math.fsum(values.tolist())
    return float(np.sum(values, dtype=np.longdouble))


def sums(x, other=None):
    """The sums of `x` as a dict; with `other`, also the sum of x * other."""
    x = as_float64(x)
    found = {
        "sum": add_up(x),
        "abs": add_up(np.abs(x)),
        "sq": add_up(np.square(x)),
        "max": float(np.abs(x).max(initial=0.0)),
        "zeros": int(np.count_nonzero(x == 0)),
        "nonfinite": int(np.count_nonzero(~np.isfinite(x))),
    }
    if other is not None:
        found["dot"] = add_up(x * as_float64(other))
    return found


def norm_of(x, kind):
    """An entrywise norm by its definition, with two passes where one would cancel."""
    x = as_float64(x).ravel()
    if kind in ("rms", "mean", "std") and not x.size:
        return math.nan
    return {
        "l1": lambda: add_up(np.abs(x)),
        "l2": lambda: math.sqrt(add_up(np.square(x))),
        "linf": lambda: float(np.abs(x).max(initial=0.0)),
        "rms": lambda: math.sqrt(add_up(np.square(x)) / x.size),
        "mean": lambda: add_up(x) / x.size,
        "std": lambda: math.sqrt(add_up(np.square(x - add_up(x) / x.size)) / x.size),
        "zeros": lambda: float(np.count_nonzero(x == 0)),
        "nonfinite": lambda: float(np.count_nonzero(~np.isfinite(x))),
    }[kind]()


def assert_sums(column, x, other=None, relative=1e-12):
    """A column of sums is right: counts exactly, the others relative to the size of what was added up."""
    expected = sums(x, other)
    scale = dict(expected, sum=expected["abs"])
    if other is not None:
        scale["dot"] = add_up(np.abs(as_float64(x) * as_float64(other)))
    for name, value in zip(ROWS, column, strict=False):
        if name not in expected:
            assert math.isnan(value), f"{name} is {value}, and there is no second array"
        elif name in ("zeros", "nonfinite"):
            assert value == expected[name], f"{name} is {value}, not {expected[name]}"
        else:
            assert_close(value, expected[name], relative * abs(scale[name]), name)


def assert_close(value, expected, allowed, name="value"):
    """Equal within an absolute error; NaN equals NaN, infinity equals infinity."""
    if math.isnan(expected) or math.isinf(expected):
        assert value == expected or (math.isnan(expected) and math.isnan(value)), f"{name} is {value}, not {expected}"
        return
    assert abs(value - expected) <= allowed, f"{name} is {value!r}, not {expected!r} within {allowed}"
