"""Matrices of layers, of which a scanned or vmapped stack holds many in one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from normkit.groups import Per, kept_axes
from normkit.types import Param


def of_each_layer(function: Callable[[Any, tuple[int, ...]], Any], param: Param, w: Any, per: Per) -> Any:
    """`function(w, kept)` of one layer, or of each layer of a stack, whose axes come first.

    The axes of a stack are those that are outputs and inputs at once; where axes are given by number they say all.
    """
    kept = kept_axes(per, param.shape, param)
    both = set(param.out_axes or ()) & set(param.in_axes or ()) if per in ("out", "in") else set()
    if not both:
        return function(w, kept)
    count = len(both)  # the leading ones
    own = tuple(axis - count for axis in kept if axis not in both)
    layers = jnp.reshape(w, (-1, *w.shape[count:]))
    results = jax.vmap(lambda layer: function(layer, own))(layers)
    return jnp.reshape(results, (*w.shape[:count], *results.shape[1:]))
