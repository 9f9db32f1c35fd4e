"""The axes whose indices are groups of a weight, for verbs that act on groups."""

from __future__ import annotations

from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per, kept_axes
from normkit.torch.aim import Target
from normkit.torch.normal import WeightNorm
from normkit.torch.normed import Normed, normed
from normkit.torch.walk import Located
from normkit.types import Param

UNSAID = {"out": (0,), "in": (1,)}  # of a tensor that only an optimizer knows, as in x @ w.T


def kept_for(param: Param, per: Per) -> tuple[int, ...]:
    """The kept axes in rising order. Raises: ArgumentError with the weight's name where it has none such."""
    if isinstance(per, str) and per in UNSAID and not param.layer and param.out_axes is None and len(param.shape) > 1:
        return UNSAID[per]
    try:
        return tuple(sorted(kept_axes(per, param.shape, param)))
    except ArgumentError as error:
        raise ArgumentError(f"{param.name}: {error}") from None


def groups_within(target: Target, per: Per, verb: str) -> tuple[int, ...]:
    """The kept axes of the tensor that is acted on: of g, whose entries are the lengths of the groups, all.

    Raises: ArgumentError for axes that do not fit; ModelError where the groups are not those that g has lengths of.
    """
    weight = target.weight
    if weight is None:
        return kept_for(target.located.param, per)
    shape, g = weight.param.shape, target.tensor
    own = normed_of(weight)
    name = weight.param.name
    if own is None or getattr(own.normal, "p", 2) != 2:
        raise ModelError(f"{name} has a g that is no length (p is not 2), so {verb} cannot act on it: select others")
    if isinstance(own.normal, WeightNorm) and own.normal.blocks > 1:
        if per == own.normal.per:
            return tuple(range(g.ndim))
    elif tuple(g.shape) == _with_ones(shape, kept_for(weight.param, per)) or (not g.ndim and per == "tensor"):
        return tuple(range(g.ndim))
    axes = tuple(i for i, size in enumerate(g.shape) if size != 1) or "tensor"
    raise ModelError(
        f"{name} is weight-normed with lengths g of shape {tuple(g.shape)}, which are not those of per={per!r}: take "
        f"per={axes!r}, or nk.remove_weight_norm first"
    )


def normed_of(weight: Located) -> Normed | None:
    """The weight norm that works this weight out."""
    name = weight.param.name.rpartition(".")[2]
    found = normed(weight.module) if weight.module is not None else iter(())
    return next((each for each in found if each.layer is weight.module and each.name == name), None)


def _with_ones(shape: tuple[int, ...], kept: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size if i in kept else 1 for i, size in enumerate(shape))
