"""Every parameter, buffer and computed weight of a model and its optimizers, each once, under one name."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from normkit.errors import ArgumentError, ModelError, StateError
from normkit.select.kinds import Kind
from normkit.select.names import unused
from normkit.torch.effective import Computed, computed_weights, originals
from normkit.torch.layers import kind_of, layer_class
from normkit.torch.names import part_by_name, without_marks, wrapped_child
from normkit.torch.signature import LAZY, Signature
from normkit.types import Param, Part


@dataclass(frozen=True)
class Located:
    """A `Param` and where it is: its tensor, or for a computed weight the function that gives it; its layer.

    `effective` gives a computed weight without a graph; `live` with one, through which derivatives reach its parts.
    """

    param: Param
    tensor: Tensor | None
    effective: Callable[[], Tensor] | None = None
    module: nn.Module | None = None
    live: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class _Found:
    """One sighting of a tensor; sightings with equal keys are ties."""

    located: Located
    path: str  # with the wrappers' names
    key: Hashable


def walk(model: nn.Module | None = None, optimizers: object = (), *, uninitialized: str = "skip") -> list[Located]:
    """All parameters, buffers and computed weights of `model`, then what the optimizers hold besides, in model order.

    Names are dotted paths without the wrappers' parts. A computed weight (weight norm, spectral norm, pruning, ...)
    bears the plain name; its parts `<name>.g`, `<name>.v` or `<name>.original`. Tensors that share their memory are
    one `Param`: the first name in model order, the others its aliases; an embedding if one of them is. A tensor known
    only from an optimizer has the name in `param_names`, else `group0.0` (`optimizer1.group0.0` in the second).

    Lazy parameters without a shape yet are left out, or with `uninitialized="error"` refused with a StateError.
    Raises: ArgumentError where `model` is no module or `optimizers` holds something without parameter groups.
    """
    optimizers = checked(model, optimizers)
    if uninitialized == "error" and (lazy := uninitialized_names(model)):
        which = f"{lazy[0]} has" if len(lazy) == 1 else f"{lazy[0]} and {len(lazy) - 1} more have"
        raise StateError(f"{which} no shape yet: run one batch through the model first")
    found = [] if model is None else [hit for hit in _in_model(model) if not _is_lazy(hit.located.tensor)]
    known = {hit.key for hit in found}
    return _united([*found, *(hit for hit in _in_optimizers(optimizers) if hit.key not in known)])


def uninitialized_names(model: nn.Module | None) -> tuple[str, ...]:
    """Names of the lazy parameters that have no shape yet; `walk` leaves them out."""
    hits = () if model is None else _in_model(model)
    return tuple(hit.located.param.name for hit in hits if _is_lazy(hit.located.tensor))


def signature(model: nn.Module | None = None, optimizers: object = (), *, buffers: bool = False) -> Signature:
    """What to ask, by `.changed()`, before a list from `walk` is used again."""
    return Signature(model, checked(model, optimizers), buffers=buffers)


def checked(model: object, optimizers: object) -> list[object]:
    """The optimizers as a list, once both arguments are what they should be."""
    if model is not None and not isinstance(model, nn.Module):
        raise ArgumentError(f"model is of type {type(model).__name__}, not a torch.nn.Module; give the module itself")
    several = [optimizers] if hasattr(optimizers, "param_groups") else optimizers
    if not isinstance(several, Iterable):
        raise ArgumentError(f"optimizers is of type {type(optimizers).__name__}, not an optimizer or a list of them")
    several = list(several)
    for optimizer in several:
        if not hasattr(optimizer, "param_groups"):
            raise ArgumentError(f"{type(optimizer).__name__} is not an optimizer: it has no param_groups")
    return several


def _is_lazy(tensor: Tensor | None) -> bool:
    return isinstance(tensor, LAZY)


def _in_model(model: nn.Module) -> Iterator[_Found]:
    """Every sighting in model order; a module reached on a second path is seen again, which makes its aliases."""
    stack: list[tuple[nn.Module, str, str, frozenset[int]]] = [(model, "", "", frozenset())]
    while stack:
        module, path, name, above = stack.pop()
        yield from _in_layer(module, path, name)
        inner, above = wrapped_child(module), above | {id(module)}
        children = [
            (child, f"{path}{key}.", name if key == inner else f"{name}{key}.", above)
            for key, child in module._modules.items()
            if child is not None and id(child) not in above  # a module that holds its own ancestor
        ]
        stack.extend(reversed(children))


def _in_layer(module: nn.Module, path: str, name: str) -> Iterator[_Found]:
    hidden = set(originals(module)) if isinstance(module, ParametrizationList) else set()
    for weight in computed_weights(module):
        hidden |= {own for *_, own in weight.parts}
        yield from _computed(module, path, name, weight)
    for own, tensor in module._parameters.items():
        if tensor is not None and own not in hidden:
            kind = _unknown() if _is_lazy(tensor) else kind_of(module, name + own, tuple(tensor.shape))
            yield _found(module, path + own, name + own, tensor, kind)
    for own, buffer in module._buffers.items():
        if buffer is not None and own not in hidden:
            yield _found(module, path + own, name + own, buffer, Kind("buffer", "buffer"))


def _unknown() -> Kind:
    return Kind("other", "no shape yet")


def _computed(module: nn.Module, path: str, name: str, weight: Computed) -> Iterator[_Found]:
    plain = name + weight.name
    if any(_is_lazy(tensor) for _, _, tensor, _ in weight.parts):
        return
    like = weight.like if weight.like is not None else _evaluated(plain, weight)
    shape = tuple(like.shape)
    is_buffer = not any(isinstance(tensor, nn.Parameter) for _, _, tensor, _ in weight.parts)
    kind = Kind("buffer", "buffer") if is_buffer else kind_of(module, plain, shape)
    param = _param(module, plain, like, kind, trainable=weight.trainable, part="effective")
    key = ("effective", id(module), weight.name)
    yield _Found(Located(param, None, weight.compute, module, weight.live), path + weight.name, key)
    for suffix, part, tensor, _ in weight.parts:
        keeps = kind if tensor.ndim == len(shape) else replace(kind, out_axes=None, in_axes=None)
        yield _found(module, f"{path}{weight.name}.{suffix}", f"{plain}.{suffix}", tensor, keeps, part=part)


def _evaluated(name: str, weight: Computed) -> Tensor:
    try:
        return weight.compute()
    except Exception as error:
        raise ModelError(f"{name} cannot be computed by its parametrization: {error}") from error


def _found(
    module: nn.Module | None, path: str, name: str, tensor: Tensor, kind: Kind, *, part: Part = "whole"
) -> _Found:
    trainable = bool(tensor.requires_grad) and kind.role != "buffer"
    param = _param(module, name, tensor, kind, trainable=trainable, part=part)
    return _Found(Located(param, tensor, None, module), path, memory_key(tensor))


def _param(module: nn.Module | None, name: str, tensor: Tensor, kind: Kind, *, trainable: bool, part: Part) -> Param:
    cls = None if module is None else layer_class(module)
    return Param(
        name=name,
        shape=() if _is_lazy(tensor) else tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        role=kind.role,
        layer=cls.__name__ if cls else "",
        out_axes=kind.out_axes,
        in_axes=kind.in_axes,
        trainable=trainable,
        part=part,
        rule=kind.rule,
        layer_type=cls,
    )


def memory_key(tensor: Tensor) -> Hashable:
    """Equal for two tensors that are the same numbers in the same memory; a tensor without memory is only itself."""
    try:
        address = 0 if _is_lazy(tensor) or type(tensor).__name__ == "FakeTensor" else tensor.data_ptr()
        if address and tensor.layout is torch.strided:
            return (tensor.device, address, tensor.dtype, tuple(tensor.shape), tensor.stride())
    except (RuntimeError, AttributeError):  # sparse, sharded, fake: no address to compare
        pass
    return id(tensor)


def _in_optimizers(optimizers: list[object]) -> Iterator[_Found]:
    for number, optimizer in enumerate(optimizers):
        prefix = f"optimizer{number}." if number else ""
        for i, group in enumerate(optimizer.param_groups):  # type: ignore[attr-defined]
            names = group.get("param_names") or ()
            for j, tensor in enumerate(group["params"]):
                plain = without_marks(names[j]) if j < len(names) else f"{prefix}group{i}.{j}"
                path = f"optimizer{number}.{plain}" if j < len(names) else plain
                if not _is_lazy(tensor):
                    shape = tuple(tensor.shape)
                    plain, part = part_by_name(plain, names)
                    kind = kind_of(None, plain[:-2] if part != "whole" else plain, shape)
                    yield _found(None, path, plain, tensor, kind, part=part)


def _united(found: list[_Found]) -> list[Located]:
    """One Located per key, in order of first sight, under a name that no other has."""
    ties: dict[Hashable, list[_Found]] = {}
    for hit in found:
        ties.setdefault(hit.key, []).append(hit)
    taken: set[str] = set()
    result = []
    for hits in ties.values():
        names = []
        for hit in hits:
            if (name := hit.located.param.name) not in names:
                names.append(unused(name, taken, other=hit.path))
                taken.add(names[-1])
        result.append(_tied([hit.located for hit in hits], names))
    return result


def _tied(places: list[Located], names: list[str]) -> Located:
    if len(places) == 1 and names[0] == places[0].param.name:
        return places[0]
    main = min(places, key=_doubt)  # the first of equals
    tensor = next((place.tensor for place in places if place.param.trainable), places[0].tensor)
    rule = main.param.rule if main is places[0] else f"tied to {main.param.name}: {main.param.rule}"
    trainable = any(place.param.trainable for place in places)
    param = replace(main.param, name=names[0], aliases=tuple(names[1:]), rule=rule, trainable=trainable)
    return replace(main, param=param, tensor=tensor)


def _doubt(place: Located) -> int:
    """Which of several places of one tensor says best what it is: an embedding, a known layer, a guess, a buffer."""
    role, rule = place.param.role, place.param.rule
    return 0 if role == "embedding" else 3 if role == "buffer" else 1 if rule.startswith("layer ") else 2
