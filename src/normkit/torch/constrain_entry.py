"""`constrain`: limits that weights satisfy after each step of an optimizer."""

from __future__ import annotations

from typing import Any

from torch import nn

from normkit.constrain.asked import one_limit
from normkit.errors import ArgumentError
from normkit.groups import Per
from normkit.torch.arguments import Models
from normkit.torch.constrain_handle import Constraint, Limit


def constrain(
    optimizer: Any,
    *,
    max_norm: float | None = None,
    unit_norm: bool | None = None,
    min_max_norm: tuple[float, float] | None = None,
    hold: float | str | None = None,
    spectral_cap: float | None = None,
    select: Any = None,
    per: Per = "out",
    model: Models | None = None,
) -> Constraint:
    """Bring weights back within a limit after each step of `optimizer`; gives a handle. One limit per call.

        max_norm=c             w_g <- w_g min(1, c / |w_g|_2)         one group g per index of the axes that `per` keeps
        unit_norm=True         w_g <- w_g / |w_g|_2
        min_max_norm=(a, b)    w_g <- w_g clip(|w_g|_2, a, b) / |w_g|_2
        hold=r, "initial"      w_g <- w_g r / |w_g|_2                 "initial": the lengths at this call
        spectral_cap=s         no singular value of the layer's matrix above s, its rows those of `per`

    Units: lengths in weight space, not RMS; not times lr; per optimizer step. Nothing is done at this call: `apply()`
    does it now. What satisfies a limit keeps its bits, so a second application changes none; no group ends above its
    limit. A zero group has no direction and stays zero.

    select  which weights (docs: select); default: kernels. A weight-normed weight is held by its g, for which the
            groups must be those of g
    per     "out" (one group per output unit), "in", "tensor", or the kept axes
    model   says which parameters are kernels and which axes are outputs; without it the optimizer's `param_names` and
            the shapes do, and the first axis is taken for the outputs

    Steps that a GradScaler skips do nothing (on an accelerator, with a fused optimizer, they do it again). Sharded
    weights are held where they are when no group is cut, else gathered at each step. With hold="initial" the
    optimizer's state dict takes the lengths along: call `constrain` first, then load.
    Raises, with all as it was: ArgumentError for none or several limits, a value that is none, a rule that matches
    nothing, axes that a weight does not have; ModelError for an optimizer of another model, a weight-normed weight of
    other groups, and with hold="initial" for a group of zeros.
    Source: Srivastava et al. 2014 (max-norm regularization); Hyperball, arXiv:2606.16899 (hold).

    >>> import torch
    >>> layer = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(layer.weight, 3.0)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> handle = constrain(optimizer, max_norm=2.0, model=layer)
    >>> handle.apply()
    >>> round(layer.weight.norm().item(), 6)
    2.0
    """
    if isinstance(optimizer, nn.Module):
        raise ArgumentError(
            f"constrain({type(optimizer).__name__}): a module; give the optimizer, as constrain(optimizer, "
            "max_norm=3.0, model=model), or bring one tensor within a limit by nk.max_norm(w, 3.0)"
        )
    given = {
        "max_norm": max_norm,
        "unit_norm": unit_norm,
        "min_max_norm": min_max_norm,
        "hold": hold,
        "spectral_cap": spectral_cap,
    }
    limit = Limit(*one_limit(given))
    handle = Constraint(optimizer, limit, select, per, model)
    handle.attach()
    return handle
