"""State dicts in three forms: plain weights, torch's older weight norm, and parametrizations (ours and torch's)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.torch.fused import weight
from normkit.torch.normed import Normed, normed, unwrapped

Form = Literal["plain", "weight_g", "parametrized"]
FORMS = ("plain", "weight_g", "parametrized")
WRITTEN = (  # a key of g in each form -> the weight's own name; the same with v
    (re.compile(r"((?:.*\.)?)(\w+)_g"), "{0}{1}_v"),
    (re.compile(r"((?:.*\.)?)parametrizations\.(\w+)\.original0"), "{0}parametrizations.{1}.original1"),
)


def convert_state_dict(state: Mapping[str, Any], form: Form, model: nn.Module | None = None) -> OrderedDict[str, Any]:
    """The same weights in another form; a new dict, in the order of the old one, nothing else touched.

    form   "plain" (`fc.weight`), "weight_g" (`fc.weight_g`, `fc.weight_v`: torch's older weight norm, and what most
           published checkpoints hold), "parametrized" (`fc.parametrizations.weight.original0` and `1`: ours, torch's)
    model  a weight-normed model of these weights: needed to go from plain weights to g and v, since it says which
           weights have them and which axes they keep; else the shape of g says it, and p is 2

    A weight-normed model of ours reads all three forms by itself (`load_state_dict`).
    Raises: ArgumentError for an unknown form, for a checkpoint that holds state dicts, for a plain state without a
    model, and for a model in which nothing is weight-normed; ModelError where the shapes do not agree.

    >>> state = {"fc.weight_g": torch.full((1, 1), 5.0), "fc.weight_v": torch.tensor([[0.3, 0.4]])}
    >>> dict(convert_state_dict(state, "plain"))
    {'fc.weight': tensor([[3., 4.]])}
    """
    if form not in FORMS:
        raise ArgumentError(f"form={in_brief(form)}: expected 'plain', 'weight_g' or 'parametrized'")
    if not isinstance(state, Mapping):
        raise ArgumentError(f"state is of type {type(state).__name__}: expected a state dict, as model.state_dict()")
    for key, value in state.items():
        if isinstance(value, Mapping) and any(isinstance(tensor, Tensor) for tensor in value.values()):
            raise ArgumentError(
                f"state[{key!r}] is a dict of tensors: give that, convert_state_dict(state[{key!r}], ...)"
            )
    known = None if model is None else _known(model)
    pairs = {g: found for g, found in _pairs(state) if known is None or found[0] in known}
    if known is not None and not pairs and not any(name in state for name in known):
        keys = ", ".join(list(state)[:2]) or "none"
        raise ArgumentError(f"the state has no {next(iter(known))}, nor another weight of the model; it has {keys}")
    if form != "plain" and known is None and not pairs and not any(".original" in key for key in state):
        raise ArgumentError(
            f"form={form!r}: the state holds plain weights, so give model=, a weight-normed model that says which of "
            "them are g and v"
        )
    result = _joined(state, pairs, known) if form == "plain" else _split(state, pairs, known or {}, form)
    if hasattr(state, "_metadata"):
        result._metadata = state._metadata  # type: ignore[attr-defined]
    return result


def _known(model: nn.Module) -> dict[str, Normed]:
    """{name in a state dict: the weight of the model}, under the wrappers' names and without them."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model is of type {type(model).__name__}, not a torch.nn.Module")
    found = list(normed(model))
    if not found:
        raise ArgumentError(f"model={type(model).__name__}: nothing in it is weight-normed, so it says nothing here")
    plain = {unwrapped(each.full, model): each for each in found}
    return plain | {each.full: each for each in found}


def _pairs(state: Mapping[str, Any]) -> list[tuple[str, tuple[str, str]]]:
    """(key of g, (the weight's name, key of v)) of every pair whose shapes are those of g and v."""
    found = []
    for key in state:
        for pattern, other in WRITTEN:
            if match := pattern.fullmatch(key):
                v = other.format(*match.groups())
                found += [(key, ("".join(match.groups()), v))] if _fits(state[key], state.get(v)) else []
    return found


def _fits(g: Any, v: Any) -> bool:
    """Could g be the lengths of v?"""
    if not isinstance(g, Tensor) or not isinstance(v, Tensor):
        return False
    if g.shape == ():
        return True
    return (
        g.ndim == v.ndim
        and all(own in (1, size) for own, size in zip(g.shape[1:], v.shape[1:], strict=True))
        and (g.shape[0] == 1 or (g.shape[0] > 0 and v.shape[0] % g.shape[0] == 0))
    )


def _joined(
    state: Mapping[str, Any], pairs: Mapping[str, tuple[str, str]], known: Mapping[str, Normed] | None
) -> OrderedDict[str, Any]:
    """With w for each g and v, before the other parameters of its layer, where a plain layer has it."""
    gone = {key for g, (_, v) in pairs.items() for key in (g, v)}
    waiting: dict[str, list[str]] = {}
    for g, (name, _) in pairs.items():
        waiting.setdefault(name.rpartition(".")[0], []).append(g)
    result: OrderedDict[str, Any] = OrderedDict()
    for key, value in state.items():
        layer = pairs[key][0].rpartition(".")[0] if key in pairs else key.rpartition(".")[0]
        for g in waiting.pop(layer, ()):
            name, v = pairs[g]
            result[name] = _folded(name, state[g], state[v], None if known is None else known[name])
        if key not in gone:
            result[key] = value
    return result


@torch.no_grad()
def _folded(name: str, g: Tensor, v: Tensor, like: Normed | None) -> Tensor:
    if like is not None and hasattr(like.normal, "kept"):
        return like.normal(_fitted(name, g, v, like), v).detach()  # type: ignore[no-any-return]
    g = g.reshape([1] * v.ndim) if g.shape == () else g
    if g.shape[0] in (1, v.shape[0]):
        kept = tuple(axis for axis in range(v.ndim) if g.shape[axis] != 1)
        return weight(g, v, kept)
    blocks = v.reshape(g.shape[0], -1, *v.shape[1:])  # a grouped transposed convolution: [groups, in/groups, ...]
    return weight(g.unsqueeze(1), blocks, (0, 2)).reshape(v.shape)


def _fitted(name: str, g: Tensor, v: Tensor, like: Normed) -> Tensor:
    """g as the model has it; only that of a whole tensor is written in two ways, with and without axes.

    Raises: ModelError where the shapes are others.
    """
    if v.shape == like.v.shape and (g.shape == like.g.shape or g.numel() == like.g.numel() == 1):
        return g.reshape(like.g.shape)
    advice = "; convert it to 'plain' without a model first" if v.shape == like.v.shape else ""
    raise ModelError(
        f"{name} has g and v of shapes {tuple(g.shape)} and {tuple(v.shape)}, in the model "
        f"{tuple(like.g.shape)} and {tuple(like.v.shape)}{advice}"
    )


def _split(
    state: Mapping[str, Any], pairs: Mapping[str, tuple[str, str]], known: Mapping[str, Normed], form: str
) -> OrderedDict[str, Any]:
    """With g and v under the form's names: those that there are renamed, a plain weight that the model knows split."""
    renamed = {}
    for g, (name, v) in pairs.items():
        renamed[g], renamed[v] = _keys(name, form)
    result: OrderedDict[str, Any] = OrderedDict()
    for key, value in state.items():
        if key in renamed:
            name, v = pairs.get(key, ("", ""))
            result[renamed[key]] = _fitted(name, value, state[v], known[name]) if name in known else value
        elif key in known:
            result.update(zip(_keys(key, form), _parts(key, value, known[key]), strict=True))
        else:
            result[key] = value
    return result


@torch.no_grad()
def _parts(name: str, w: Tensor, like: Normed) -> tuple[Tensor, Tensor]:
    if w.shape != like.v.shape:
        raise ModelError(f"{name} has shape {tuple(w.shape)} in the state, in the model {tuple(like.v.shape)}")
    g, v = like.split(w.detach())
    return g, v


def _keys(name: str, form: str) -> tuple[str, str]:
    layer, dot, own = name.rpartition(".")
    if form == "weight_g":
        return f"{name}_g", f"{name}_v"
    place = f"{layer}{dot}parametrizations.{own}.original"
    return f"{place}0", f"{place}1"
