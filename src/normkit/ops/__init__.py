"""Array operations, one drawer per library, and the way to the right drawer.

A drawer has

    matrix_of_sums(arrays)  -> [6][N]    the sums (types.SUMS) of every array
    sums_of_rows(rows)      -> [6][R]    the sums of every row of a 2-D array
    as_rows(x, kept)        -> [R][..]   kept axes to the front and flattened, the rest flattened
    as_float64(x)           -> NumPy array

and imports its own library; nothing here does.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from normkit.errors import ArgumentError

_DRAWERS = {"numpy": "numpy", "torch": "torch", "jax": "jax", "jaxlib": "jax", "tensorflow": "tensorflow"}
_LIBRARIES = tuple(dict.fromkeys(_DRAWERS.values()))


def ops_of(x: object) -> ModuleType:
    """The drawer for `x`, found from the modules that its classes come from.

    Raises: ArgumentError for what is no array, and for one that no drawer knows.

    >>> import numpy as np
    >>> ops_of(np.zeros(3)).__name__
    'normkit.ops.numpy'
    """
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        for kind in type(x).__mro__:
            library = kind.__module__.partition(".")[0]
            if library in _DRAWERS:
                return import_module(f"normkit.ops.{_DRAWERS[library]}")
    given = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
    advice = "for the norms of a model use nk.norms(model)" if hasattr(x, "parameters") else "convert it first"
    raise ArgumentError(f"an array was expected, of {', '.join(_LIBRARIES)}, and a {given} was given; {advice}")
