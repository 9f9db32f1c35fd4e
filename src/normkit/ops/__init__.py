"""Array operations, one drawer per library, and the way to the right drawer.

A drawer has

    matrix_of_sums(arrays)  -> [6][N]    the sums (types.SUMS) of every array
    sums_of_rows(rows)      -> [6][R]    the sums of every row of a 2-D array
    as_rows(x, kept)        -> [R][..]   kept axes to the front and flattened, the rest flattened
    as_float64(x)           -> NumPy array

and imports its own library; nothing here does. Beside it stand its fine operations, which formulas are written with;
each can be differentiated twice, traced and compiled as its library does it:

    absolute sqrt where power(x, exponent) matrix_product(a, b)        as everywhere
    total(x, axes)          sum over the axes, which stay with size 1; no axes: x
    largest(x, axes)        the largest |x| over the axes, which stay with size 1; no axes: |x|; of nothing 0
    ones(x)                 1 for each entry of x
    constant(x)             x, taken as a constant by derivatives
    power_of_two(x)         the largest power of two that is not above x; 1 where x is 0 or not finite
    widened(x)              float16 and bfloat16 as float32, float32 and float64 as they are
    widest(x)               float64 where the library and the device have it, else float32
    as_type_of(x, like)     x in the dtype of `like`
    reshaped(x, shape)      the same entries in their order
    transposed(x, order)    axis `order[i]` of x as axis i
    places(x)               0, 1, 2, ... for the rows of a matrix x, as a column
    svd(x)                  U, S, V' of a finite matrix, U S V' = x, without the columns of U and rows of V' beyond S
    either(flag, change, x) change(x) where the one number `flag` is true, else x; only what is needed is worked out
                            where that can be decided
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from normkit.errors import ArgumentError

_DRAWERS = {"numpy": "numpy", "torch": "torch", "jax": "jax", "jaxlib": "jax", "tensorflow": "tensorflow"}
_LIBRARIES = tuple(dict.fromkeys(_DRAWERS.values()))
_MATH: dict[type, ModuleType] = {}  # found once per class: a formula asks at each call


def ops_of(x: object) -> ModuleType:
    """The drawer for `x`, found from the modules that its classes come from.

    Raises: ArgumentError for what is no array, and for one that no drawer knows.

    >>> import numpy as np
    >>> ops_of(np.zeros(3)).__name__
    'normkit.ops.numpy'
    """
    return import_module(f"normkit.ops.{_library(x)}")


def math_of(x: object) -> ModuleType:
    """The fine operations for `x`.

    Raises: as `ops_of`.

    >>> import numpy as np
    >>> math_of(np.zeros(3)).__name__
    'normkit.ops.numpy_math'
    """
    found = _MATH.get(type(x))
    if found is None:
        found = _MATH[type(x)] = import_module(f"normkit.ops.{_library(x)}_math")
    return found


def _library(x: object) -> str:
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        for kind in type(x).__mro__:
            library = kind.__module__.partition(".")[0]
            if library in _DRAWERS:
                return _DRAWERS[library]
    given = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
    advice = "for the norms of a model use nk.norms(model)" if hasattr(x, "parameters") else "convert it first"
    raise ArgumentError(f"an array was expected, of {', '.join(_LIBRARIES)}, and a {given} was given; {advice}")
