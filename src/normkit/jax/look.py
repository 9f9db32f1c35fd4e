"""A look at a tree right now: its norms, and which of its arrays a rule takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax

from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.jax.parts import whole
from normkit.jax.walk import Located, walk
from normkit.norms import canonical
from normkit.ops.jax import refuse_absent, refuse_unreadable
from normkit.recording.look import norms_of
from normkit.select import Explanation
from normkit.select import select as select_params
from normkit.spectrum import OPERATOR_NORMS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def norms(
    params: Any, kind: str = "l2", per: Per = "tensor", *, select: Any = None
) -> dict[str, float | NDArray[np.float64]]:
    """The norm of every weight now, as {name: value}.

    params  a tree of arrays: dicts and lists, a flax or equinox module
    kind    an entrywise norm (l1 l2 linf rms mean std zeros nonfinite) or an operator norm (spectral stable_rank
            nuclear), which takes kernels and embeddings as the matrices that the layers apply: of one layer, not of
            a stack of them
    per     "tensor" (one float each), "out" or "in" (an array: one value per output or input unit), or kept axes
    select  which weights (docs: select); default: everything trainable

    Waits for the device, so it is not for the inside of jit: there take `nk.stats`. Raises: ArgumentError for what is
    no tree of arrays, an unknown kind, a rule that matches nothing, an array that cannot be read, or one whose layer
    does not say which axes are outputs (`per="out"`), and an operator norm of a stack of layers.

    >>> norms({"w": np.full((2, 1), 3.0)}, "l1")
    {'w': 6.0}
    """
    if isinstance(params, str):
        raise ArgumentError(f"params={params!r}: the tree comes first: nk.norms(params, 'l2')")
    taken = _matrix if canonical(kind) in OPERATOR_NORMS else _readable
    return norms_of([(item.param, partial(taken, item)) for item in walk(params)], kind, per, select)


def explain(params: Any, select: Any = None) -> Explanation:
    """Which of the arrays `select` takes and why; print it.

    Raises: ArgumentError for what is no tree of arrays, and for a rule that matches nothing.
    """
    return select_params([item.param for item in walk(params)], select, default="trainable").explain()


def _readable(item: Located) -> Any:
    """The array. Raises: ArgumentError that names it, where its numbers cannot be read."""
    for array in jax.tree.leaves(item.array):
        refuse_unreadable(array, item.param.name)
        refuse_absent(array, item.param.name)
    return whole(item.array)


def _matrix(item: Located) -> Any:
    """The array. Raises: ArgumentError where it is a stack of matrices, or may be one, and as `_readable`."""
    out_axes, in_axes = (set(axes or ()) for axes in (item.param.out_axes, item.param.in_axes))
    if len(item.param.shape) > 2 and (not out_axes or out_axes & in_axes):
        what = "is" if out_axes else "may be"
        raise ArgumentError(
            f"{item.param.name} of shape {item.param.shape} {what} a stack of layers, and this norm is of one matrix: "
            "give one layer, jax.tree.map(lambda x: x[0], ...), or leave it out with select="
        )
    return _readable(item)
