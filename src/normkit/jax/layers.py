"""One table: layer class of flax nnx or equinox -> parameter -> role and axes; and what to think of trees of dicts.

Classes stand here as text, so that neither library is imported. Axes are positions in the parameter's shape as one
layer has it, counted from the end where negative. `out` has one index per unit that the layer computes, `in` one per
unit that it reads; the positions of a convolution filter belong to neither. An axis that counts only within a group of
a grouped convolution is not named. The leading axes of a stack of layers (`nnx.vmap`, `eqx.filter_vmap`, `nn.scan`)
belong to both: each layer has its own units. Where the shape may be a stack's or a filter's, no axes are named.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

from normkit.select.kinds import Axes, Kind, Named, Row, by_shape, role_by_name
from normkit.types import Role

EVERY: tuple[int, ...] = (99,)  # stands in the table for "all axes of the parameter"


BIAS: Row = ("bias*", "bias", (0,), None)
IO: tuple[Row, ...] = (("kernel", "kernel", (-1,), (-2,)), BIAS)
OI: tuple[Row, ...] = (("weight", "kernel", (0,), (1,)), BIAS)
SCALED: tuple[Row, ...] = (("scale", "scale", EVERY, None), ("bias", "bias", EVERY, None))
WEIGHTED: tuple[Row, ...] = (("weight", "scale", EVERY, None), ("bias", "bias", EVERY, None))
GATES: tuple[Row, ...] = (("weight_[ih]h", "kernel", (0,), (1,)), BIAS)  # stacked along axis 0
LAYERS: dict[str, tuple[Row, ...]] = {
    "flax.nnx.nn.linear.Linear": IO,
    "flax.nnx.nn.linear.Conv": IO,
    "flax.nnx.nn.linear.ConvTranspose": IO,
    "flax.nnx.nn.linear.Einsum": (("kernel", "kernel", None, None), ("bias", "bias", EVERY, None)),
    "flax.nnx.nn.linear.Embed": (("embedding", "embedding", (0,), (1,)),),
    "flax.nnx.nn.lora.LoRA": (("lora_*", "kernel", (-1,), (-2,)),),
    "flax.nnx.nn.activations.PReLU": (("negative_slope", "other", None, None),),
    "equinox.nn._linear.Linear": OI,
    "equinox.nn._conv.Conv": OI,
    "equinox.nn._conv.ConvTranspose": OI,
    "equinox.nn._embedding.Embedding": (("weight", "embedding", (0,), (1,)),),
    "equinox.nn._rnn.LSTMCell": GATES,
    "equinox.nn._rnn.GRUCell": GATES,
    "equinox.nn._activations.PReLU": (("negative_slope", "other", None, None),),
    **{f"flax.nnx.nn.normalization.{name}Norm": SCALED for name in ("Batch", "Layer", "RMS", "Group", "Instance")},
    **{f"equinox.nn._normalisation.{name}Norm": WEIGHTED for name in ("Layer", "RMS", "Group")},
    "equinox.nn._batch_norm.BatchNorm": WEIGHTED,
}
LINEAR_GENERAL = "flax.nnx.nn.linear.LinearGeneral"

NORM_CLASS = re.compile(r"(Layer|RMS|Rms|Batch|Group|Instance)?Norm(\d[dD])?$")

# Names that say more than the shape does; the first that matches whole counts. True: only where the shape is a vector.
NAMES: tuple[Named, ...] = (
    (r"embeddings?|embed|w[tp]e|(\w+_)?emb(ed|edding|eddings)?(_table)?|\w+_embed", "embedding", False),
    (r"A_log|dt_bias|time_(decay|first|mix\w*)", "other", False),
    (r"\w*(cls|class|mask|dist|register|reg|query|prompt)_tokens?|cls|\w*latents?", "other", False),
    (r"logit_(scale|bias)|temperature|tau|sinks|negative_slope", "other", False),
    (r"gamma(_\d+)?|\w*layer_?scale\w*|scale|g", "scale", True),
    (r"beta|offset|b(_?\d+|_[a-z]+)?|B", "bias", True),
    (r"(\w+_)?bias(es)?(_\w+)?", "bias", False),
    (r"kernel|[wW](_?\d+|_[a-z]+)?", "kernel", False),
)
READS_ROWS = ("kernel", "w", "W")  # names of matrices that are applied as x @ w: [in, out], filters [.., in, out]
HEADS = ("query", "key", "value", "out")  # linen's projections to the heads of attention, and back
CONV = re.compile(r"conv", re.IGNORECASE)
ATTENTION = re.compile(r"\w*(attention|attn|mha)\w*", re.IGNORECASE)
MOVING = re.compile(r"mean|var")
BATCH_NORM = re.compile(r"\w*(batch_?norm|bn)\w*", re.IGNORECASE)
MADE_BY_LINEN = re.compile(r"([A-Z]\w*?)_\d+")


def classes_of(node: Any) -> list[str]:
    """The full names of the node's class and those above it."""
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(node).__mro__]


def layer_name(owner: Any, path: tuple[str, ...]) -> str:
    """The class name of the layer; in a tree of dicts what linen calls it: `Dense_0` is a Dense."""
    if owner is not None:
        return type(owner).__name__
    made = MADE_BY_LINEN.fullmatch(path[-2]) if len(path) > 1 else None
    return made[1] if made else ""


def kind_of(owner: Any, path: tuple[str, ...], shape: tuple[int, ...], bias: tuple[int, ...] | None = None) -> Kind:
    """Role and axes of the parameter at `path`, held by the module `owner` (None in a tree of dicts).

    `bias` is the shape of the bias beside it in a tree of dicts, which says whether this is a stack of layers.

    Asked in this order: the layer's type, its class name where it is a normalization, the parameter's name, its shape.
    """
    leaf, label = path[-1] if path else "", layer_name(owner, path)
    return (
        _by_type(owner, leaf, shape)
        or _by_class_name(label, leaf, shape)
        or _by_name(path, leaf, shape, bias)
        or by_shape(leaf, shape)
    )


def _by_type(owner: Any, leaf: str, shape: tuple[int, ...]) -> Kind | None:
    for text in classes_of(owner) if owner is not None else ():
        if text == LINEAR_GENERAL and leaf in ("kernel", "bias"):
            return _of_linear_general(owner, leaf, shape)
        if row := next((row for row in LAYERS.get(text, ()) if fnmatchcase(leaf, row[0])), None):
            name = text.rpartition(".")[2]
            own = type(owner).__name__ == name or type(owner).__module__.startswith(text.partition(".")[0] + ".")
            rule = f"layer {type(owner).__name__}" if own else f"layer {type(owner).__name__}, a {name}"
            _, role, out_axes, in_axes = row
            if getattr(owner, "transpose_kernel", False) and leaf == "kernel":
                out_axes, in_axes = in_axes, out_axes
            grouped = any(_more_than_one(getattr(owner, word, 1)) for word in ("groups", "feature_group_count"))
            if grouped and role == "kernel" and len(shape) > 2:
                in_axes = None
            stack = len(shape) - _own_rank(owner, role, len(shape))
            return Kind(role, rule, _from_zero(out_axes, shape, stack), _from_zero(in_axes, shape, stack))
    return None


def _own_rank(owner: Any, role: Role, rank: int) -> int:
    """How many axes this parameter of one layer has; those of a stack come before them."""
    if role not in ("kernel", "embedding", "bias"):
        return rank
    if role == "bias":  # equinox gives the bias of a convolution the axes of a picture
        return 1 + int(getattr(owner, "num_spatial_dims", 0))
    return 2 + int(getattr(owner, "num_spatial_dims", len(getattr(owner, "kernel_size", ()))))


def _of_linear_general(owner: Any, leaf: str, shape: tuple[int, ...]) -> Kind:
    """[stack .., batch .., in .., out ..]: as many of each as the layer says."""
    written, read = len(owner.out_features), len(owner.in_features) if leaf == "kernel" else 0
    rule, every = f"layer {type(owner).__name__}", tuple(range(len(shape)))
    own = len(owner.batch_axis) + read + written
    stack, out_axes = every[: len(shape) - own], every[len(shape) - written :]
    if leaf == "bias":
        return Kind("bias", rule, stack + out_axes)
    return Kind("kernel", rule, stack + out_axes, stack + every[len(shape) - written - read : len(shape) - written])


def _more_than_one(count: object) -> bool:
    return isinstance(count, int) and count > 1


def _from_zero(axes: Axes, shape: tuple[int, ...], stack: int) -> Axes:
    """Axes of one layer as those of a stack: its leading axes, and then the layer's."""
    own = len(shape) - stack
    if axes == EVERY:
        return tuple(range(len(shape)))
    if axes is None or stack < 0 or any(not -own <= axis < own for axis in axes):
        return None
    return (*range(stack), *(stack + axis % own for axis in axes))


def _by_class_name(label: str, leaf: str, shape: tuple[int, ...]) -> Kind | None:
    if not NORM_CLASS.search(label) or not shape:
        return None
    every = tuple(range(len(shape)))
    if leaf in ("bias", "beta", "offset"):
        return Kind("bias", f"class name {label}", every)
    if leaf in ("scale", "weight", "gamma"):
        return Kind("scale", f"class name {label}", every)
    return None


def _by_name(path: tuple[str, ...], leaf: str, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> Kind | None:
    above = path[-2] if len(path) > 1 else ""
    word = above if leaf.isdigit() else leaf
    if MOVING.fullmatch(leaf) and BATCH_NORM.fullmatch(above):
        return Kind("buffer", f"name {leaf}")
    role = role_by_name(NAMES, word, shape)
    if role is None:
        return None
    axes = _axes_by_name(path, role, word, shape, bias)
    return Kind(role, f"name {word}", *axes)


def _axes_by_name(
    path: tuple[str, ...], role: Role, word: str, shape: tuple[int, ...], bias: tuple[int, ...] | None
) -> tuple[Axes, Axes]:
    rank = len(shape)
    if role == "embedding" and rank == 2:
        return (0,), (1,)
    if role in ("bias", "scale"):
        return tuple(range(rank)), None
    if role != "kernel" or word not in READS_ROWS or rank < 2:
        return None, None
    if rank > 2 and len(path) > 1 and path[-2] in HEADS and any(ATTENTION.fullmatch(part) for part in path[:-2]):
        return _axes_of_heads(path[-2], shape, bias)
    return _axes_of_rows(path, shape, bias)


def _axes_of_rows(path: tuple[str, ...], shape: tuple[int, ...], bias: tuple[int, ...] | None) -> tuple[Axes, Axes]:
    """[stack .., positions .., in, out]: the bias says how many axes are a stack's; nothing where nobody says it."""
    rank = len(shape)
    if bias is None:  # a matrix, or a filter of so few axes that it is hardly a stack's
        alone = rank == 2 or (rank < 5 and any(CONV.search(part) for part in path[:-1]))
        return ((rank - 1,), (rank - 2,)) if alone else (None, None)
    stack = tuple(range(len(bias) - 1)) if rank > 2 else ()
    if rank > 2 and (bias != (*shape[: len(stack)], shape[-1]) or rank - len(stack) < 2):
        return None, None
    return (*stack, rank - 1), (*stack, rank - 2)


def _axes_of_heads(projection: str, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> tuple[Axes, Axes]:
    """[in, heads, size] and back again: [heads, size, out], as linen has it; nothing of a stack of them."""
    read = 2 if projection == "out" else 1
    if len(shape) != 3 or bias not in (None, shape[read:]):
        return None, None
    axes = (0, 1, 2)
    return axes[read:], axes[:read]
