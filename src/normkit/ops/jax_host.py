"""JAX arrays whose numbers are in this process's memory, outside of any trace: NumPy works with them at once, where jax
would compile a dozen small operations for each shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def on_host(*arrays: Any) -> bool:
    """Can NumPy read them all in place?"""
    return all(_on_host(x) for x in arrays)


def outright(function: Callable[..., Any], *arrays: Any) -> Any:
    """`function` of the arrays, worked out by NumPy where all are on the host, else by jax.

    The result is of the first one's kind, and lies on devices as that does where it has its shape.
    """
    if not on_host(*arrays):
        return function(*arrays)
    return _beside(function(*(np.asarray(x) for x in arrays)), arrays[0])


def _beside(result: Any, v: Any) -> Any:
    """A NumPy array as one of jax's where v is one, and where v is: bound to a device only if v is."""
    if not isinstance(v, jax.Array):
        return result
    same = result.shape == v.shape or not isinstance(v.sharding, jax.sharding.NamedSharding)
    return jax.device_put(result, v.sharding) if v.committed and same else jax.numpy.asarray(result)


def _on_host(x: Any) -> bool:
    if not isinstance(x, jax.Array):
        return True
    if isinstance(x, jax.core.Tracer) or x.is_deleted() or not x.is_fully_addressable:
        return False
    return all(device.platform == "cpu" for device in x.devices())
