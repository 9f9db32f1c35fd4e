"""A look at a model right now: its norms, and which of its parameters a rule takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from normkit.errors import ArgumentError, in_brief
from normkit.groups import Per, kept_axes
from normkit.norms import canonical, from_sums, norm
from normkit.ops import torch as ops
from normkit.ops.torch_columns import refuse_unreadable
from normkit.select import Explanation
from normkit.select import select as select_params
from normkit.spectrum import OPERATOR_NORMS, matrix
from normkit.torch.arguments import Models, is_optimizer, joined
from normkit.torch.walk import Located, walk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MATRICES = ("kernel", "embedding")  # what an operator norm is defined for
SPOKEN = {"spectral": "spectral norm", "nuclear": "nuclear norm", "stable_rank": "stable rank"}


def norms(
    model: Models | torch.optim.Optimizer, kind: str = "l2", per: Per = "tensor", *, select: Any = None
) -> dict[str, float | NDArray[np.float64]]:
    """The norm of every weight now, as {name: value}.

    model   a module, several ({"G": g, "D": d} or a list), or an optimizer
    kind    an entrywise norm (l1 l2 linf rms mean std zeros nonfinite) or an operator norm (spectral stable_rank
            nuclear), which takes kernels and embeddings as the matrices that the layers apply
    per     "tensor" (one float each), "out" or "in" (an array: one value per output or input unit), or kept axes
    select  which weights (docs: select); default: everything trainable

    Waits for the device. Raises: ArgumentError for what is no model, an unknown kind, a rule that matches nothing, a
    tensor that cannot be read, or one whose layer does not say which axes are outputs (`per="out"`).

    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(layer.weight, 3.0)
    >>> norms(layer, "l1")
    {'weight': 6.0}
    """
    if isinstance(model, str):
        raise ArgumentError(f"model={model!r}: the model comes first: nk.norms(model, 'l2')")
    name = canonical(kind)
    located = _located(model)
    default: Any = MATRICES if name in OPERATOR_NORMS and select is None else "trainable"
    chosen = {param.name for param in select_params([item.param for item in located], select, default=default).chosen}
    taken = [item for item in located if item.param.name in chosen]
    if per == "tensor" and name not in OPERATOR_NORMS:
        return _entrywise(taken, name)
    return {item.param.name: _one(item, name, per) for item in taken}


def explain(model: Models | torch.optim.Optimizer, select: Any = None) -> Explanation:
    """Which parameters `select` takes and why; print it.

    `model` is what `norms` takes. Raises: ArgumentError for what is no model, and for a rule that matches nothing.
    """
    return select_params([item.param for item in _located(model)], select, default="trainable").explain()


def _readable(item: Located) -> torch.Tensor:
    """The weight. Raises: ArgumentError that names it, where its numbers cannot be read."""
    tensor = tensor_of(item)
    refuse_unreadable(tensor, item.param.name)
    return tensor


def tensor_of(item: Located) -> torch.Tensor:
    """The weight itself; a computed one is worked out without side effects."""
    if item.effective is not None:
        return item.effective()
    assert item.tensor is not None  # walk gives each Located a tensor or a function for it
    return item.tensor.detach()


def _entrywise(taken: list[Located], kind: str) -> dict[str, float | NDArray[np.float64]]:
    matrix = ops.sums([_readable(item) for item in taken]).wait()[0]
    values = from_sums(matrix, [item.param.count for item in taken], kind)
    return {item.param.name: float(value) for item, value in zip(taken, values, strict=True)}


def _one(item: Located, kind: str, per: Per) -> float | NDArray[np.float64]:
    param, tensor = item.param, _readable(item)
    if kind not in OPERATOR_NORMS:
        return norm(tensor, kind, per=kept_axes(per, param.shape, param) or "tensor")
    if per != "tensor":
        raise ArgumentError(
            f"per={in_brief(per)}: {kind} is a norm of the whole matrix of {param.name}; use per='tensor'"
        )
    if len(param.shape) < 2:
        raise ArgumentError(
            f"{param.name} of shape {param.shape} is no matrix, so it has no {SPOKEN[kind]}; use select='kernel'"
        )
    return OPERATOR_NORMS[kind](matrix(tensor, param.out_axes or (0,), param.in_axes or (1,)))


def _located(model: Any) -> list[Located]:
    return walk(None, [model]) if is_optimizer(model) else walk(joined(model))
