"""Every array of a tree, each under one readable name: trees of dicts and lists, flax nnx and linen, equinox.

Names are the dotted path without what a library puts there for itself: `params` and `batch_stats` of linen, `.value`
of a box or a variable, `~` of haiku. Two places that hold the same nnx variable are one `Param` with an alias. Two
places that hold the same array are not tied: in a tree each is updated for itself. A normalized weight bears its plain
name; its parts are `<name>.g` and `<name>.v`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import jax
import numpy as np

from normkit.errors import ArgumentError, ModelError, in_brief
from normkit.jax.layers import classes_of, kind_of, layer_name
from normkit.jax.parts import METADATA, VARIABLE, Normalized, content, is_boxed, is_normalized
from normkit.ops.jax import is_key
from normkit.select.kinds import Kind
from normkit.select.names import unused
from normkit.types import Param, Part

PARAM = "flax.nnx.variablelib.Param"
UNSEEN = {VARIABLE: "value", METADATA: "value", "equinox.nn._shared.Shared": "pytree"}
BIASES = ("bias", "b")
BUFFERS = {"equinox.nn._stateful.StateIndex", "equinox.nn._stateful.State"}
LEFT_OUT = {
    "flax.nnx.rnglib.RngState",
    "flax.nnx.variablelib.Intermediate",
    "flax.nnx.variablelib.Perturbation",
    "flax.nnx.graphlib.GraphDef",
    "flax.nnx.graph.GraphDef",
}
COLLECTIONS = {"params", "batch_stats"}  # of linen's variables
OTHER_COLLECTIONS = {"cache", "intermediates", "perturbations", "losses", "constants", "metrics", "state"}


@dataclass(frozen=True)
class Located:
    """A `Param` and its array, or of a normalized weight both of its arrays; the nnx variable that holds it."""

    param: Param
    array: Any
    variable: Any = None


@dataclass(frozen=True)
class _Here:
    """Where a descent stands: the path, the module that holds what is below, and whether that is trained."""

    path: tuple[str, ...] = ()
    owner: Any = None
    trained: bool = True
    variable: Any = None  # the nnx variable that holds this
    outside: int = 0  # how long the path to it is
    above: frozenset[int] = frozenset()
    bias: tuple[int, ...] | None = None  # the shape of the bias that stands in the same dict
    whole: Kind | None = None  # what the weight is that this is a part of


def walk(tree: Any, what: str = "params") -> list[Located]:
    """All arrays of `tree`, in its own order; random keys and what is no array are left out.

    Raises: ArgumentError where there is no array in it, or it is no tree of weights at all (`what` names it).
    """
    ties: dict[object, list[Located]] = {}
    for located, here in _arrays(_weights_of(tree, what), _Here()):
        key = object() if here.variable is None else (id(here.variable), here.path[here.outside :])
        ties.setdefault(key, []).append(located)
    if not ties:
        raise ArgumentError(
            f"{what}={in_brief(tree)} holds no array; give a tree of arrays, or a flax or equinox module"
        )
    return _united(list(ties.values()))


def _arrays(node: Any, here: _Here) -> Iterator[tuple[Located, _Here]]:
    classes = set(classes_of(node))
    if node is None or classes & LEFT_OUT or id(node) in here.above:
        return
    if VARIABLE in classes:
        here = replace(here, trained=here.trained and PARAM in classes, variable=node, outside=len(here.path))
    elif is_normalized(node):
        yield from _in_parts(node, here)
        return
    elif _is_array(node):
        if not is_key(node):
            yield _located(node, here), here
        return
    here = replace(here, trained=here.trained and not classes & BUFFERS, above=here.above | {id(node)})
    hidden = next((UNSEEN[text] for text in classes_of(node) if text in UNSEEN), None)
    owner = here.owner if hidden else node if _is_module(node) else None
    children = _children(node)
    here = here if hidden else replace(here, bias=_bias_among(children))
    for key, child in children:
        path, trained = here.path, here.trained
        if not here.path and _is_collections(node):
            trained = key == "params"
        elif key != hidden:
            path = (*path, *_segments(key))
        yield from _arrays(child, replace(here, path=path, owner=owner, trained=trained))


def _in_parts(node: Normalized, here: _Here) -> Iterator[tuple[Located, _Here]]:
    """The weight that a node stands for, then its parts; of an optimizer's masked ones what there is."""
    v, g = content(node.v), content(node.g)
    if _is_array(v) and _is_array(g):
        located = _located(Normalized(v, g, node.p), here)
        variable = node.v if is_boxed(node.v) else None
        yield located, replace(here, variable=variable, outside=max(len(here.path) - 1, 0))
        param = located.param
        here = replace(here, whole=Kind(param.role, param.rule, param.out_axes, param.in_axes))
    for name, part in (("g", node.g), ("v", node.v)):
        yield from _arrays(part, replace(here, path=(*here.path, name)))


def _children(node: Any) -> list[tuple[str, Any]]:
    """Keys and children, one level down, in the node's own order, numbers in keys by their size."""
    pairs = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda child: child is not node)[0]
    if len(pairs) == 1 and not pairs[0][0]:
        return []  # a leaf that is no array
    named = [(_text(path[0]), child) for path, child in pairs]
    if isinstance(node, tuple) and any(_is_graph(child) for _, child in named):  # what nnx.split gives
        return [("", child) for _, child in named]
    return sorted(named, key=lambda pair: _natural(pair[0])) if isinstance(node, Mapping) else named


def _bias_among(children: list[tuple[str, Any]]) -> tuple[int, ...] | None:
    """The shape of the bias among them, in a box of linen's or without one."""
    found = [child for key, child in children if key in BIASES]
    arrays: list[Any] = [x if hasattr(x, "shape") else getattr(x, "value", None) for x in found]
    return next((tuple(x.shape) for x in arrays if hasattr(x, "shape")), None)


def _text(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _segments(key: str) -> list[str]:
    """The parts of a key: haiku's `mlp/~/linear_0` has two."""
    return [part for part in key.split("/") if part not in ("", "~")]


def _is_array(node: Any) -> bool:
    return isinstance(node, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def _is_module(node: Any) -> bool:
    """Is it a layer rather than a container? Named tuples and dataclasses of a user's count as containers."""
    return any(text in ("flax.nnx.module.Module", "equinox._module._module.Module") for text in classes_of(node))


def _is_collections(node: Any) -> bool:
    keys = set(node) if isinstance(node, Mapping) else set()
    return "params" in keys and keys <= COLLECTIONS | OTHER_COLLECTIONS


def _is_graph(node: Any) -> bool:
    return any(text.endswith(".GraphDef") for text in classes_of(node))


def _located(array: Any, here: _Here) -> Located:
    like, part = (array.v, "effective") if is_normalized(array) else (array, here.path[-1] if here.whole else "whole")
    shape, dtype = tuple(like.shape), like.dtype
    counts = not jax.numpy.issubdtype(dtype, jax.numpy.inexact)
    kind = here.whole or kind_of(here.owner, here.path, shape, here.bias)
    if not here.trained or counts:
        kind = Kind("buffer", "buffer" if here.trained is False else f"{dtype} is not trained")
    param = Param(
        name=".".join(here.path) or "weight",
        shape=shape,
        dtype=str(dtype),
        role=kind.role,
        layer=layer_name(here.owner, here.path[:-1] if here.whole else here.path),
        out_axes=kind.out_axes,
        in_axes=kind.in_axes,
        trainable=kind.role != "buffer",
        part=cast(Part, part),
        rule=kind.rule,
        layer_type=None if here.owner is None else type(here.owner),
    )
    return Located(param, array, here.variable)


def _united(ties: list[list[Located]]) -> list[Located]:
    """One Located per array, under a name that no other has; what else it is called are its aliases."""
    taken: set[str] = set()
    result = []
    for places in ties:
        names = []
        for place in places:
            names.append(unused(place.param.name, taken))
            taken.add(names[-1])
        main = next((place for place in places if place.param.role == "embedding"), places[0])
        result.append(replace(main, param=replace(main.param, name=names[0], aliases=tuple(names[1:]))))
    return result


# --- what people give besides trees -----------------------------------------------------------------------------------


def _weights_of(given: Any, what: str) -> Any:
    """The tree of weights in what was given."""
    classes = classes_of(given)
    if "flax.nnx.training.optimizer.Optimizer" in classes:
        if (model := getattr(given, "model", None)) is None:
            raise ModelError(
                f"{what}={type(given).__name__}(...): this optimizer holds no weights; give the model itself"
            )
        return model
    if "flax.linen.module.Module" in classes:
        raise ModelError(
            f"{what}={type(given).__name__}(...): a linen module holds no weights; give what its init() returned"
        )
    if isinstance(given, type):
        raise ArgumentError(f"{what}={given.__name__} is a class; give a tree of arrays, or an instance of the module")
    if hasattr(given, "params") and hasattr(given, "tx"):  # flax's TrainState
        return given.params
    return given
