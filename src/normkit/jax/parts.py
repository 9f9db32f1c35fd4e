"""A weight in two parts, g and v, at the place that the weight had in a tree; and the boxes that flax puts arrays in.

Which axes are kept is not written down: g has size 1 along the others. So a node stays true under `vmap` and `scan`,
which take axes away from both of its arrays, and under whatever stacks layers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import numpy as np

from normkit.errors import ArgumentError, StateError, in_brief
from normkit.jax.layers import classes_of
from normkit.normalize import norm_except_dim, normalized
from normkit.ops.jax_host import outright

VARIABLE, METADATA = "flax.nnx.variablelib.Variable", "flax.core.meta.AxisMetadata"


@dataclass(frozen=True, eq=False, repr=False)
class Normalized:
    """A weight w = g v / |v|_p as a node of a tree; both of its arrays are trained. `materialize` gives w.

    Where the weight stood in a box (an nnx variable, linen's `Partitioned`), each of the two stands in one.
    """

    v: Any  # first: linen compares the shape of the first array at a weight's place with what it expects there
    g: Any
    p: float = 2

    def __repr__(self) -> str:
        power = "" if self.p == 2 else f", p={self.p}"
        return f"Normalized(g={_in_short(self.g)}, v={_in_short(self.v)}{power})"

    # What a layer does first with its weight, so that a model called without `materialize` says what is missing.

    def __jax_array__(self) -> NoReturn:
        raise StateError(_not_joined(self))

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise StateError(_not_joined(self))

    def __getitem__(self, index: Any) -> NoReturn:
        raise StateError(_not_joined(self))

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r} was asked of {_not_joined(self)}" if name[:1] != "_" else name)


jax.tree_util.register_dataclass(Normalized, data_fields=["v", "g"], meta_fields=["p"])


def is_normalized(node: Any) -> bool:
    """Is it a weight in two parts?"""
    return isinstance(node, Normalized)


def parted(box: Any, kept: tuple[int, ...], p: float) -> Normalized:
    """An array, in a box or without one, as a node: v is the array, g the lengths of its groups."""
    v = content(box)
    return Normalized(in_box_of(box, v), _lengths_in_box(box, v, _lengths(v, kept, p)), p)


def whole(array: Any) -> Any:
    """The weight itself, of an array that may be in two parts."""
    return joined(array) if is_normalized(array) else array


def joined(node: Normalized) -> Any:
    """The weight that a node stands for, in the box that v has.

    Raises: ArgumentError where its arrays are not there or do not belong together.
    """
    v, g = content(node.v), content(node.g)
    if not hasattr(v, "shape") or not hasattr(g, "shape"):
        raise ArgumentError(f"{node!r} lacks an array: put the parts of the tree together first (eqx.combine)")
    if len(g.shape) != len(v.shape) or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=True)):
        raise ArgumentError(
            f"g has shape {tuple(g.shape)} beside v of shape {tuple(v.shape)}; expected as many axes, each of v's size "
            "or of size 1"
        )
    kept = tuple(axis for axis, (a, b) in enumerate(zip(g.shape, v.shape, strict=True)) if a == b)
    return in_box_of(node.v, _weight(v, g, kept, node.p))


def _weight(v: Any, g: Any, kept: tuple[int, ...], p: float) -> Any:
    if isinstance(v, jax.ShapeDtypeStruct):
        return v
    if not isinstance(v, jax.Array) and isinstance(g, jax.Array):
        v = jax.numpy.asarray(v)
    return outright(lambda v, g: normalized(v, g, kept, p=p), v, g)


def _lengths(v: Any, kept: tuple[int, ...], p: float) -> Any:
    """g for v; along its kept axes it lies on devices as v does."""
    sharding = None if isinstance(v, jax.core.Tracer) else getattr(v, "sharding", None)
    if isinstance(sharding, jax.sharding.NamedSharding):
        spec = jax.sharding.PartitionSpec(*(s if axis in kept else None for axis, s in enumerate(sharding.spec)))
        sharding = jax.sharding.NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)
    if isinstance(v, jax.ShapeDtypeStruct):
        shape = tuple(size if axis in kept else 1 for axis, size in enumerate(v.shape))
        return jax.ShapeDtypeStruct(shape, v.dtype, sharding=sharding)
    lengths = outright(lambda v: norm_except_dim(v, kept, p=p), v)
    return jax.device_put(lengths, sharding) if isinstance(sharding, jax.sharding.NamedSharding) else lengths


# --- flax's checkpoints -----------------------------------------------------------------------------------------------


def tell_flax() -> None:
    """`flax.serialization` saves what it was told of; the rest it refuses, or puts back as it was saved."""
    flax = sys.modules.get("flax.serialization")
    if flax is not None:
        flax.register_serialization_state(Normalized, _saved, _loaded, override=True)


def _saved(node: Normalized) -> dict[str, Any]:
    flax = sys.modules["flax.serialization"]
    return {name: flax.to_state_dict(part) for name, part in (("g", node.g), ("v", node.v))}


def _loaded(node: Normalized, state: Any) -> Normalized:
    if not isinstance(state, dict) or set(state) != {"g", "v"}:
        given = f"{sorted(state)}" if isinstance(state, dict) else in_brief(state)
        raise ArgumentError(
            f"{given} was saved where {node!r} stands: load it into the params as they were before nk.weight_norm"
        )
    flax = sys.modules["flax.serialization"]
    parts = {name: flax.from_state_dict(getattr(node, name), state[name], name=name) for name in ("g", "v")}
    return Normalized(p=node.p, **parts)


# --- boxes ------------------------------------------------------------------------------------------------------------


def is_boxed(node: Any) -> bool:
    """Is it an nnx variable, or a box of linen's?"""
    return not isinstance(node, jax.Array) and not {VARIABLE, METADATA}.isdisjoint(classes_of(node))


def content(node: Any) -> Any:
    """The array in a box; what is in none, itself."""
    if not is_boxed(node):
        return node
    return node.get_value() if VARIABLE in classes_of(node) else node.value


def in_box_of(box: Any, array: Any) -> Any:
    """The array in a box of the same kind, with the same metadata; as it is where `box` is none."""
    if not is_boxed(box):
        return array
    return box.copy(array) if VARIABLE in classes_of(box) else box.replace_boxed(array)


def _lengths_in_box(box: Any, v: Any, g: Any) -> Any:
    """g in a box as v has; where that names the mesh axes of v's axes, none is named for those that g has not."""
    if not is_boxed(box):
        return g
    is_variable = VARIABLE in classes_of(box)
    names = box.get_metadata().get("out_sharding") if is_variable else getattr(box, "names", None)
    if not isinstance(names, tuple | list | jax.sharding.PartitionSpec):
        return in_box_of(box, g)
    short = [name if g.shape[axis] == v.shape[axis] else None for axis, name in enumerate(names)]
    own = jax.sharding.PartitionSpec(*short) if isinstance(names, jax.sharding.PartitionSpec) else tuple(short)
    return box.copy(g, out_sharding=own) if is_variable else box.replace(value=g, names=own)


# --- words ------------------------------------------------------------------------------------------------------------


def _in_short(part: Any) -> str:
    array = getattr(content(part), "value", content(part))
    if not hasattr(array, "shape"):
        return type(part).__name__ if part is not None else "None"
    text = f"{np.dtype(array.dtype).name}{list(array.shape)}"
    return f"{type(part).__name__}({text})" if is_boxed(part) else text


def _not_joined(node: Normalized) -> str:
    if VARIABLE in classes_of(node.v):
        return f"a weight in two parts, {node!r}: call the nk.WeightNorm that holds its layer, or nk.materialize(model)"
    return f"a weight in two parts, {node!r}: give the model what nk.materialize(params) returns"
