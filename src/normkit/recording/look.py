"""A look at some weights right now, whichever door found them: their norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, kept_axes
from normkit.norms import canonical, from_sums, norm
from normkit.ops import ops_of
from normkit.select import select as select_params
from normkit.spectrum import OPERATOR_NORMS, matrix
from normkit.types import Param

if TYPE_CHECKING:
    from numpy.typing import NDArray

MATRICES = ("kernel", "embedding")  # what an operator norm is defined for
SPOKEN = {"spectral": "spectral norm", "nuclear": "nuclear norm", "stable_rank": "stable rank"}
IN_OUT = (-1, -2)  # where no layer says: the last axis is the output's, as in x @ w

Found = Sequence[tuple[Param, Callable[[], Any]]]  # each with the function that gives its array, as it is now


def norms_of(
    tensors: Found, kind: str, per: Per, select: Any, *, unsaid: tuple[int, int] = IN_OUT
) -> dict[str, float | NDArray[np.float64]]:
    """{name: norm} of those of the tensors that `select` takes.

    `unsaid` is the axis of outputs and that of inputs of a matrix whose layer does not say.

    Raises: ArgumentError for an unknown kind, a rule that matches nothing, an operator norm of what is no matrix, or
    `per` where the layer does not say which axes are outputs.
    """
    name = canonical(kind)
    default: Any = MATRICES if name in OPERATOR_NORMS and select is None else "trainable"
    chosen = {param.name for param in select_params([param for param, _ in tensors], select, default=default).chosen}
    taken = [(param, array()) for param, array in tensors if param.name in chosen]
    if per != "tensor" or name in OPERATOR_NORMS:
        return {param.name: _one(param, array, name, per, unsaid) for param, array in taken}
    if not taken:
        return {}
    sums = ops_of(taken[0][1]).matrix_of_sums([array for _, array in taken])
    values = from_sums(sums, [param.count for param, _ in taken], name)
    return {param.name: float(value) for (param, _), value in zip(taken, values, strict=True)}


def _one(param: Param, array: Any, kind: str, per: Per, unsaid: tuple[int, int]) -> float | NDArray[np.float64]:
    if kind not in OPERATOR_NORMS:
        return norm(array, kind, per=kept_axes(per, param.shape, param) or "tensor")
    if per != "tensor":
        raise ArgumentError(
            f"per={in_brief(per)}: {kind} is a norm of the whole matrix of {param.name}; use per='tensor'"
        )
    if len(param.shape) < 2:
        raise ArgumentError(
            f"{param.name} of shape {param.shape} is no matrix, so it has no {SPOKEN[kind]}; use select='kernel'"
        )
    out, into = (axis % len(param.shape) for axis in unsaid)
    return OPERATOR_NORMS[kind](matrix(array, param.out_axes or (out,), param.in_axes or (into,)))
