"""A look at a model right now: its norms, and which of its parameters a rule takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.ops.torch_columns import refuse_unreadable
from normkit.recording.look import norms_of
from normkit.select import Explanation
from normkit.select import select as select_params
from normkit.torch.arguments import Models, is_optimizer, joined
from normkit.torch.walk import Located, walk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OUT_IN = (0, 1)  # of a matrix whose layer does not say: as in x @ w.T


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
    found = [(item.param, partial(_readable, item)) for item in _located(model)]
    return norms_of(found, kind, per, select, unsaid=OUT_IN)


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


def _located(model: Any) -> list[Located]:
    return walk(None, [model]) if is_optimizer(model) else walk(joined(model))
