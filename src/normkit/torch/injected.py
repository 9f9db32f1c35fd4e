"""The class that torch gives a parametrized layer, and what it lacks there: copies, pickles, old states, assignment.

torch makes one class for the layer (`ParametrizedLinear`), with a property for each weight. A copy of the layer shares
that class, so that removing a weight from one breaks the other; pickling is refused; a state dict of the plain layer
does not load. Here each layer, copied or loaded, has a class of its own, and torch knows it as one of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from normkit.torch.normal import WeightNorm
from normkit.torch.once import asked_once, emptied, kept_while_running
from normkit.torch.set import tensor_for


def norm_of(layer: nn.Module, name: str) -> WeightNorm | None:
    """Our parametrization of the layer's weight `name`, if it has one."""
    lists = layer._modules.get("parametrizations")
    holder = lists._modules.get(name) if isinstance(lists, nn.ModuleDict) else None
    first = holder._modules.get("0") if isinstance(holder, ParametrizationList) else None
    return first if isinstance(first, WeightNorm) else None


def parts(layer: nn.Module, name: str) -> tuple[nn.Parameter, nn.Parameter]:
    """g and v of the layer's weight `name`, one of ours or of torch's parametrizations."""
    holder: Any = layer.parametrizations[name]  # type: ignore[index]
    return holder.original0, holder.original1


def plain_class(layer: nn.Module) -> type[nn.Module]:
    """The layer's class without torch's."""
    return type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)


def inject(layer: nn.Module, name: str, normal: WeightNorm) -> None:
    """Register `normal` for the layer's weight `name`, in a class that is this layer's alone."""
    if parametrize.is_parametrized(layer):
        own_class(layer)
    parametrize.register_parametrization(layer, name, normal, unsafe=True)
    _complete(layer)


def own_class(layer: nn.Module, plain: type[nn.Module] | None = None) -> None:
    """Give the layer a fresh class for the parametrizations that it has; the plain one where it has none."""
    layer.__class__ = plain or plain_class(layer)
    lists = layer._modules.get("parametrizations")
    if isinstance(lists, nn.ModuleDict) and len(lists):
        _with_properties(layer, tuple(lists))


def _with_properties(layer: nn.Module, names: tuple[str, ...]) -> None:
    parametrize._inject_new_class(layer)
    for name in names:
        parametrize._inject_property(layer, name)
    _complete(layer, names)


def _complete(layer: nn.Module, names: tuple[str, ...] | None = None) -> None:
    """Put what torch lacks into the class that it gave the layer."""
    cls = type(layer)
    plain = cls.__bases__[0]
    names = names or tuple(layer.parametrizations)  # type: ignore[arg-type]
    for name in names:
        cls_property = cls.__dict__[name]
        if not hasattr(cls_property, "normkit"):
            setattr(cls, name, _Weight(name, cls_property))
    members: dict[str, Callable[..., Any]] = {
        "__reduce_ex__": _reduced(plain, names),
        "__deepcopy__": _copied(plain),
        "__setattr__": _assigned(plain, frozenset(names)),
        "_load_from_state_dict": _loaded(plain),
    }
    for member, function in members.items():
        setattr(cls, member, function)
    asked_once(cls, plain)
    emptied(layer)


class _Weight(property):
    """torch's property for a weight; asked once per forward where layers ask often; set part by part."""

    normkit = True

    def __init__(self, name: str, torchs: property) -> None:
        getter: Any = torchs.fget
        setter: Any = torchs.fset

        def set_parts(self: nn.Module, value: Any) -> None:
            if norm_of(self, name) is None or len(self.parametrizations[name]) > 1:  # type: ignore[index]
                setter(self, value)
            else:
                assign(self, name, value)

        super().__init__(kept_while_running(name, getter), set_parts)


@torch.no_grad()
def assign(layer: nn.Module, name: str, value: Any) -> None:
    """Make `value` the weight: into g and v as they stand, so that an optimizer goes on with them.

    Raises: ArgumentError for another shape, and for what is no array.
    """
    normal, (g, v) = norm_of(layer, name), parts(layer, name)
    assert normal is not None
    w = tensor_for(value, v, name).to(v)
    length = normal.length(w)
    v.copy_(w)
    g.copy_(length)


def _assigned(plain: type[nn.Module], names: frozenset[str]) -> Callable[..., None]:
    def set_attribute(self: nn.Module, name: str, value: Any) -> None:
        if name in names and isinstance(value, nn.Parameter) and "parametrizations" in self._modules:
            value = value.detach()  # torch would register it beside the weight that is there
        plain.__setattr__(self, name, value)

    return set_attribute


# --- copies and pickles ----------------------------------------------------------------------------------------------


def _copied(plain: type[nn.Module]) -> Callable[..., nn.Module]:
    def deep_copy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        if id(self) in memo:
            return memo[id(self)]  # type: ignore[no-any-return]
        if (own := getattr(plain, "__deepcopy__", None)) is not None:
            other: nn.Module = own(self, memo)
        else:
            other = plain.__new__(plain)
            memo[id(self)] = other
            state = {key: value for key, value in self.__dict__.items() if key != "_flat_weight_refs"}
            other.__dict__.update(copy.deepcopy(state, memo))
        own_class(other, plain)
        return other

    return deep_copy


def _reduced(plain: type[nn.Module], names: tuple[str, ...]) -> Callable[..., tuple[Any, ...]]:
    def reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
        return rebuilt, (plain, names), plain.__getstate__(self)  # type: ignore[no-untyped-call]

    return reduce


def rebuilt(plain: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """An empty layer whose class has properties for `names`; pickle fills it."""
    layer = plain.__new__(plain)
    _with_properties(layer, names)
    return layer


# --- states ----------------------------------------------------------------------------------------------------------


def _loaded(plain: type[nn.Module]) -> Callable[..., None]:
    def load(self: Any, state: dict[str, Any], prefix: str, local: Any, strict: bool, *reports: Any) -> None:
        for name in self.parametrizations:
            if norm_of(self, name) is not None:
                reports[-1].extend(_translated(self, name, state, prefix))
        plain._load_from_state_dict(self, state, prefix, local, strict, *reports)

    return load


def _translated(layer: nn.Module, name: str, state: dict[str, Any], prefix: str) -> list[str]:
    """Rename or split what another form of state dict holds for this weight; what does not fit, in torch's words."""
    normal, (g, v), errors = norm_of(layer, name), parts(layer, name), []
    assert normal is not None
    places = [f"{prefix}parametrizations.{name}.original{i}" for i in (0, 1)]
    pair = [f"{prefix}{name}_{part}" for part in "gv"]
    if all(key in state for key in pair):
        for place, key in zip(places, pair, strict=True):
            state[place] = state.pop(key)
    elif f"{prefix}{name}" in state and not any(place in state for place in places):
        w = state.pop(f"{prefix}{name}")
        if not isinstance(w, torch.Tensor):  # torch says so
            state[places[0]], state[places[1]] = g.detach(), w
        elif w.shape == v.shape:
            state[places[0]], state[places[1]] = normal.right_inverse(w if w.dtype == v.dtype else w.to(v.dtype))
        else:
            state[places[0]], state[places[1]] = g.detach(), v.detach()
            errors.append(
                f"size mismatch for {prefix}{name}: copying a param with shape {w.shape} from checkpoint, the shape in "
                f"current model is {v.shape}."
            )
    if (stored := state.get(places[0])) is not None and stored.shape == () and g.numel() == 1:
        state[places[0]] = stored.reshape(g.shape)  # torch's g of a whole tensor has no axes
    elif isinstance(stored, torch.Tensor) and stored.shape != g.shape and stored.ndim == g.ndim:
        errors.append(
            f"{prefix}{name} keeps other axes in the checkpoint than here: normalize with its per= (torch's default is "
            "0), or load convert_state_dict(state, 'plain')."
        )
    return errors
