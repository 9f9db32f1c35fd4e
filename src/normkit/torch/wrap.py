"""`weight_norm`: give layers of a model the parts g and v in place of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError, ModelError
from normkit.groups import Per, kept_axes
from normkit.lengths import checked as checked_p
from normkit.select import select as select_params
from normkit.torch.arguments import checked_module, is_optimizer
from normkit.torch.fused import FLOATS
from normkit.torch.handover import Change, Orphans, hand_over, optimizers_of, places, refuse_strangers
from normkit.torch.injected import inject, norm_of, parts
from normkit.torch.normal import WeightNorm
from normkit.torch.normed import normed
from normkit.torch.walk import Located, memory_key, walk
from normkit.types import Param

M = TypeVar("M", bound=nn.Module)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# What wraps a model and has taken note of its parameters: class -> what to do instead.
WRAPPERS_TOO_LATE = {
    "DistributedDataParallel": "normalize the model before DistributedDataParallel takes it",
    "FullyShardedDataParallel": "normalize the model before FullyShardedDataParallel takes it",
    "FSDPModule": "normalize the model before fully_shard",
}


@dataclass(frozen=True)
class Plan:
    """One weight that is to be normalized."""

    param: Param
    layer: nn.Module
    name: str
    weight: nn.Parameter
    normal: WeightNorm


def weight_norm(module: M, select: Any = None, per: Per = "out", optimizer: Any = None, *, p: float = 2) -> M:
    """Write weights of `module` as a length times a direction, in place, and return the module.

        w = g v / |v|_p          |v|_p over everything that `per` does not keep; now v = w, g = |w|_p

    The parts stand where torch's own parametrization puts them: `parametrizations.weight.original0` is g,
    `original1` is v, and `layer.weight` is worked out from them whenever it is asked for, so it is never stale. Where
    a group of v is zero, w is 0 and every gradient finite.

    select     which weights (docs: select); default: kernels. One layer: `weight_norm(model.fc)`
    per        "out" (one length per output unit, whatever the layer's layout), "in", "tensor", or the kept axes
    optimizer  one or several that hold the weights: g and v take the weight's place in its group, with fresh state
    p          which norm, from 1 to math.inf

    Shapes: g has v's shape with size 1 on the axes that are not kept; for a grouped transposed convolution with
    per="out" [groups, out/groups, 1, ...].
    Warns, where no optimizer is given and one is alive that still holds a weight: that one trains nothing any more.
    Raises, with everything as it was: ArgumentError for a rule that reaches nothing, a weight that is normalized
    already, axes or p that do not fit; ModelError for a weight that is tied, computed by another parametrization, not
    of a floating type, sharded, or of a scripted module, and for an optimizer that holds none of them; StateError for
    a lazy layer that has seen no batch.
    Source: Salimans & Kingma 2016, arXiv:1602.07868.

    >>> layer = weight_norm(nn.Linear(3, 2))
    >>> [(name, tuple(p.shape)) for name, p in layer.named_parameters()][1:]
    [('parametrizations.weight.original0', (2, 1)), ('parametrizations.weight.original1', (2, 3))]
    """
    checked_module(module, "weight_norm")
    if is_optimizer(select):
        raise ArgumentError(
            f"select={type(select).__name__}: give the optimizer by name, as weight_norm(model, optimizer=...)"
        )
    plans = planned(module, select, per, checked_p(p))
    optimizers = optimizers_of(optimizer)
    trained = {plan.param.name: [plan.weight] for plan in plans if plan.weight.requires_grad}
    refuse_strangers(optimizers, trained, "weight_norm")
    before = places(module)
    changes = [_carried_out(plan) for plan in plans]
    hand_over(optimizers, changes, before, places(module))
    orphans = Orphans(changes, optimizers, "weight_norm")
    del plans, changes, trained
    orphans.warn()
    return module


def planned(module: nn.Module, select: Any, per: Per, p: float) -> list[Plan]:
    """What is to be done, once nothing can be said against it."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(f"{type(module).__name__} is a scripted module: normalize the model before torch.jit.script")
    located = walk(module, uninitialized="error")
    chosen = select_params([item.param for item in located], select, default="kernel").chosen
    if not chosen:
        count = len(located)
        raise ArgumentError(f"select=None finds no kernel among {count} parameters: select others by name or role")
    names = {param.name for param in chosen}
    slots = _slots(module)
    late = _too_late(module)
    return [_plan(item, slots, late, per, p) for item in located if item.param.name in names]


Slots = dict[Any, list[tuple[str, nn.Module, str]]]


def _slots(module: nn.Module) -> Slots:
    """Where each parameter stands, by its memory: more than one place is a tie."""
    found: Slots = {}
    for path, layer in module.named_modules():
        for name, tensor in layer._parameters.items():
            if tensor is not None:
                found.setdefault(memory_key(tensor), []).append((f"{path}.{name}" if path else name, layer, name))
    return found


def _too_late(module: nn.Module) -> dict[int, str]:
    """{id of a layer that a wrapper holds: what should have been done}."""
    late: dict[int, str] = {}
    for outer in module.modules():
        for cls in type(outer).__mro__:
            if cls.__name__ in WRAPPERS_TOO_LATE and cls.__module__.startswith("torch."):
                late |= {id(layer): WRAPPERS_TOO_LATE[cls.__name__] for layer in outer.modules()}
    return late


def _plan(item: Located, slots: Slots, late: dict[int, str], per: Per, p: float) -> Plan:
    param, weight = item.param, item.tensor
    if param.part in ("g", "v") or (item.effective is not None and _is_normed(item)):
        name = param.name.removesuffix(".g").removesuffix(".v")
        raise ArgumentError(f"{name} is already normalized: leave it out (select=), or remove_weight_norm first")
    if item.effective is not None or param.name.endswith(".original"):
        name = param.name.removesuffix(".original")
        raise ModelError(f"{name} is computed by another parametrization or hook: remove that first")
    if not isinstance(weight, nn.Parameter):
        raise ModelError(f"{param.name} is a buffer, not a parameter, so there is nothing to train in it")
    places = slots[memory_key(weight)]
    if len(places) > 1:
        tied = ", ".join(place for place, _, _ in places)
        raise ModelError(f"{param.name} is tied ({tied} are one tensor): leave it out (select=), or untie it")
    _, layer, name = places[0]
    _refuse_kind(param, weight, layer, late)
    normal = _norm(param, layer, per, p)
    _refuse_lengths(param, weight, normal)
    return Plan(param, layer, name, weight, normal)


def _is_normed(item: Located) -> bool:
    assert item.module is not None
    name = item.param.name.rpartition(".")[2]
    return any(each.name == name and each.layer is item.module for each in normed(item.module))


def _refuse_kind(param: Param, weight: Tensor, layer: nn.Module, late: dict[int, str]) -> None:
    """Raises: ModelError for a weight that cannot be a length times a direction, or not any more."""
    if isinstance(layer, torch.jit.ScriptModule):
        raise ModelError(f"{param.name} is of a scripted module: normalize the model before torch.jit.script")
    if id(layer) in late:
        raise ModelError(f"{param.name} is held by a wrapper that knows its parameters: {late[id(layer)]}")
    if type(weight) is not nn.Parameter:
        what = type(weight).__name__
        advice = (
            "normalize the model before fully_shard or parallelize_module" if what == "DTensor" else "use a plain one"
        )
        raise ModelError(f"{param.name} is of the tensor class {what}: {advice}")
    if weight.dtype not in FLOATS or weight.layout is not torch.strided:
        kind = str(weight.dtype if weight.dtype not in FLOATS else weight.layout).removeprefix("torch.")
        raise ModelError(f"{param.name} is {kind}: expected dense float16, bfloat16, float32 or float64")


def _norm(param: Param, layer: nn.Module, per: Per, p: float) -> WeightNorm:
    before = [norm_of(layer, name) for name in getattr(layer, "parametrizations", ())]
    order = next((normal.order for normal in before if normal is not None), tuple(layer._parameters))
    if per == "out" and isinstance(layer, TRANSPOSED) and layer.groups > 1:
        return WeightNorm((0, 1), p, blocks=layer.groups, per=per, order=order)
    try:
        kept = kept_axes(per, param.shape, param)
    except ArgumentError as error:
        raise ArgumentError(f"{param.name}: {error}") from None
    return WeightNorm(tuple(sorted(kept)), p, per=per, order=order)


def _refuse_lengths(param: Param, weight: Tensor, normal: WeightNorm) -> None:
    """Raises: ModelError where a length does not fit into the weight's dtype, or an entry is not finite."""
    if weight.device.type == "meta" or bool(normal.length(weight.detach()).isfinite().all()):
        return
    kind = str(weight.dtype).removeprefix("torch.")
    if not bool(weight.isfinite().all()):
        raise ModelError(f"{param.name} has entries that are not finite: there is no length to take")
    raise ModelError(
        f"{param.name} has groups longer than {kind} holds: keep more axes than per={normal.per!r}, or a wider dtype"
    )


def _carried_out(plan: Plan) -> Change:
    inject(plan.layer, plan.name, plan.normal)
    new = parts(plan.layer, plan.name)
    names = tuple(f"parametrizations.{plan.name}.original{i}" for i in (0, 1))
    return Change(plan.param.name, (plan.weight,), new, (plan.name,), names)
