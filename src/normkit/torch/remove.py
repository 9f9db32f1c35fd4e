"""`remove_weight_norm`: fold g and v into a plain weight again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.torch.arguments import checked_module
from normkit.torch.handover import Change, Orphans, State, hand_over, optimizers_of, places, refuse_strangers
from normkit.torch.injected import own_class, plain_class
from normkit.torch.normal import WeightNorm
from normkit.torch.normed import Normed, normed

M = TypeVar("M", bound=nn.Module)
FIRST = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "weight", "weight_ih", "weight_hh")


def remove_weight_norm(module: M, optimizer: Any = None, state: State = "carry") -> M:
    """Fold every weight-normed weight of `module` into a plain parameter, and return the module.

    Ours, torch's `parametrizations.weight_norm` and its older `weight_norm` are taken off alike. The weight is what it
    was, stands where it stood among the layer's parameters, and is trained if a part of it was.

    optimizer  one or several that hold the parts: the weight takes v's place in its group, g leaves
    state      "carry": the optimizer's state of v (momentum, second moments, step) is the weight's now; "reset": none

    Warns, where no optimizer is given and one is alive that still holds a part.
    Raises, with everything as it was: ArgumentError where nothing is weight-normed; ModelError where another
    parametrization stands upon it, where it is sharded, and for an optimizer that holds none of the parts.

    >>> layer = remove_weight_norm(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    >>> [name for name, _ in layer.named_parameters()]
    ['weight', 'bias']
    """
    checked_module(module, "remove_weight_norm")
    if state not in ("carry", "reset"):
        raise ArgumentError(f"state={in_brief(state)}: expected 'carry' or 'reset'")
    found = list(normed(module))
    if not found:
        raise ArgumentError(f"no weight norm found in {type(module).__name__}: nothing to remove")
    for each in found:
        _refuse(each)
    optimizers = optimizers_of(optimizer)
    trained = {each.full: (each.g, each.v) for each in found if each.g.requires_grad or each.v.requires_grad}
    refuse_strangers(optimizers, trained, "remove_weight_norm")
    folded: dict[int, nn.Parameter] = {}
    for each in found:  # everything is computed before anything changes; a parametrization that is shared, once
        if id(each.v) not in folded:
            folded[id(each.v)] = _folded(each)
    before = places(module)
    changes = [_carried_out(each, folded[id(each.v)]) for each in found]
    hand_over(optimizers, changes, before, places(module), state)
    orphans = Orphans(changes, optimizers, "remove_weight_norm")
    del found, changes, trained, each
    orphans.warn()
    return module


def _refuse(each: Normed) -> None:
    if each.holder is not None and len(each.holder) > 1:
        above = type(each.holder[1]).__name__
        raise ModelError(f"{each.full} has {above} upon its weight norm: remove that first")
    if type(each.v) is not nn.Parameter:
        raise ModelError(f"{each.full} is of the tensor class {type(each.v).__name__}: fold it before it is sharded")
    if any(cls.__name__ == "FSDPModule" for cls in type(each.layer).__mro__):
        raise ModelError(f"{each.full} is sharded by fully_shard: fold the model before that, or its full state dict")


@torch.no_grad()
def _folded(each: Normed) -> nn.Parameter:
    weight = each.compute().detach()
    return nn.Parameter(weight, requires_grad=each.g.requires_grad or each.v.requires_grad)


def _carried_out(each: Normed, weight: nn.Parameter) -> Change:
    layer, name = each.layer, each.name
    order = each.normal.order if isinstance(each.normal, WeightNorm) else ()
    if each.hook is not None:
        _take_off_hook(layer, name, each.hook)
        old = (f"{name}_g", f"{name}_v")
    else:
        _take_off_parametrization(layer, name)
        old = (f"parametrizations.{name}.original0", f"parametrizations.{name}.original1")
    layer.register_parameter(name, weight)
    _in_order(layer, name, order)
    if isinstance(layer, nn.RNNBase) and "parametrizations" not in layer._modules:
        layer._init_flat_weights()
    return Change(each.full, (each.g, each.v), (weight,), old, (name,))


def _take_off_hook(layer: nn.Module, name: str, number: int) -> None:
    for key in (f"{name}_g", f"{name}_v"):
        del layer._parameters[key]
    layer.__dict__.pop(name, None)
    del layer._forward_pre_hooks[number]


def _take_off_parametrization(layer: Any, name: str) -> None:
    """By hand: torch's own removal makes a buffer of a frozen weight, and takes it from the copies of the layer too."""
    plain = plain_class(layer)
    del layer.parametrizations[name]
    if not len(layer.parametrizations):
        del layer._modules["parametrizations"]
    own_class(layer, plain)
    for number, hook in list(layer._load_state_dict_pre_hooks.items()):
        if _translates(hook, name):
            del layer._load_state_dict_pre_hooks[number]


def _translates(hook: Any, name: str) -> bool:
    """Is this the hook by which torch's weight norm reads states of the older one?"""
    function = getattr(hook, "hook", hook)
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    if getattr(function, "__name__", "") != "_weight_norm_compat_hook" or code is None:
        return False
    return dict(zip(code.co_freevars, (cell.cell_contents for cell in cells), strict=True)).get("name") == name


def _in_order(layer: nn.Module, name: str, order: Sequence[str]) -> None:
    """Put `name` back among the layer's own parameters where it was; where nobody noted that, before the others."""
    known = getattr(layer, "_flat_weights_names", None) or order or FIRST
    rank = {own: place for place, own in enumerate(known)}
    own = layer._parameters
    for key in sorted(own, key=lambda key: rank.get(key, len(rank))):
        own[key] = own.pop(key)
