"""One table: Keras layer class -> weight -> role and axes; and what to think of weights it does not hold.

Axes are positions in the weight's shape, counted from the end. `out` has one index per unit that the layer computes (an
output feature, a channel, a gate's unit, a row of an embedding), `in` one per unit that it reads; the positions of a
convolution filter belong to neither. An axis that counts only within a group of a grouped convolution is not named.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import keras

from normkit.select.kinds import EVERY, Axes, Kind, Named, Row, by_shape, is_vector, placed, role_by_name
from normkit.types import Role

BIAS: Row = ("bias", "bias", EVERY, None)
LORA: tuple[Row, ...] = (("lora_*", "kernel", (-1,), (-2,)), ("*_scale", "buffer", None, None))
DENSE: tuple[Row, ...] = (("kernel", "kernel", (-1,), (-2,)), BIAS, *LORA)
CONV_TRANSPOSE: tuple[Row, ...] = (("kernel", "kernel", (-2,), (-1,)), BIAS)
DEPTHWISE: tuple[Row, ...] = (("kernel", "kernel", (-2, -1), (-2,)), BIAS)
SEPARABLE: tuple[Row, ...] = (
    ("depthwise_kernel", "kernel", (-2, -1), (-2,)),
    ("pointwise_kernel", "kernel", (-1,), (-2,)),
    BIAS,
)
CELL: tuple[Row, ...] = (  # gates are stacked along the last axis
    ("kernel", "kernel", (-1,), (-2,)),
    ("recurrent_kernel", "kernel", (-1,), (-2,)),
    ("bias", "bias", (-1,), None),  # GRU has one for the input and one for the state, stacked along axis 0
)
LOOKUP: tuple[Row, ...] = (
    ("embeddings", "embedding", (0,), (1,)),
    ("reverse_embeddings", "kernel", (-1,), (-2,)),
    *LORA,
)
NORM: tuple[Row, ...] = (
    ("gamma", "scale", EVERY, None),
    ("scale", "scale", EVERY, None),
    ("beta", "bias", EVERY, None),
    ("bias", "bias", EVERY, None),
)
SCORES: tuple[Row, ...] = (("scale", "other", None, None), ("concat_score_weight", "other", None, None))
LAYERS: dict[type, tuple[Row, ...]] = {
    keras.layers.Dense: DENSE,
    keras.layers.EinsumDense: (BIAS, *LORA),  # the kernel's axes stand in its equation
    keras.layers.Conv1D: DENSE,
    keras.layers.Conv2D: DENSE,
    keras.layers.Conv3D: DENSE,
    keras.layers.Conv1DTranspose: CONV_TRANSPOSE,
    keras.layers.Conv2DTranspose: CONV_TRANSPOSE,
    keras.layers.Conv3DTranspose: CONV_TRANSPOSE,
    keras.layers.DepthwiseConv1D: DEPTHWISE,
    keras.layers.DepthwiseConv2D: DEPTHWISE,
    keras.layers.SeparableConv1D: SEPARABLE,
    keras.layers.SeparableConv2D: SEPARABLE,
    keras.layers.Embedding: LOOKUP,
    keras.layers.ReversibleEmbedding: LOOKUP,
    keras.layers.SimpleRNNCell: CELL,
    keras.layers.LSTMCell: CELL,
    keras.layers.GRUCell: CELL,
    keras.layers.BatchNormalization: NORM,
    keras.layers.LayerNormalization: NORM,
    keras.layers.GroupNormalization: NORM,
    keras.layers.RMSNormalization: NORM,
    keras.layers.PReLU: (("alpha", "other", EVERY, None),),
    keras.layers.Attention: SCORES,
    keras.layers.AdditiveAttention: SCORES,
}
NAMED_CLASSES: dict[str, tuple[Row, ...]] = {"ConvLSTMCell": CELL}  # not public

NORM_CLASS = re.compile(
    r"(Layer|RMS|Rms|Batch|Group|Instance|Scale|Unit)Norm(alization)?\w*$|Norm(alization)?(\d[dD])?$"
)

# Names that say more than the shape does; the first that matches whole counts. True: only where the shape is a vector.
NAMES: tuple[Named, ...] = (
    (r"\w*(pos|position|positional)_?emb(ed|edding|eddings)?|embeddings?|\w+_embeddings?", "embedding", False),
    (r"relative_position_bias_table|\w*_pos_emb\w*", "embedding", False),
    (r"\w*(cls|class|mask|dist|register|query|prompt)_tokens?|logit_(scale|bias)|temperature|tau", "other", False),
    (r"gamma(_\d+)?|\w*layer_?scale\w*|lambda_?\d*|scale|g", "scale", True),
    (r"beta|b|(\w+_)?bias(es)?", "bias", True),
)


def kind_of(layer: Any, name: str, shape: tuple[int, ...], *, learned: bool = True) -> Kind:
    """Role and axes of the weight `name` of `layer`.

    Asked in this order: the layer's type, what the layer itself says is no parameter (`learned=False`: BatchNorm's
    moving statistics), its class name, the weight's name where it says more than the shape, the shape.
    """
    if kind := _by_type(layer, name, shape):
        return kind
    if not learned:
        return Kind("buffer", "not trainable")
    return _by_class_name(layer, name, shape) or _by_name(name, shape) or by_shape(name, shape)


def role_of_name(leaf: str) -> Role | None:
    """The role that every layer of the table gives to a weight of this name; None where they do not agree."""
    rows = [row for of_layer in LAYERS.values() for row in of_layer if row[0] == leaf]
    roles: set[Role] = {row[1] for row in rows}
    if leaf == "kernel":
        roles.add("kernel")
    return roles.pop() if len(roles) == 1 else None


def _by_type(layer: Any, name: str, shape: tuple[int, ...]) -> Kind | None:
    label = type(layer).__name__
    for cls in type(layer).__mro__:
        rows = LAYERS.get(cls) or NAMED_CLASSES.get(cls.__name__, ())
        rule = f"layer {label}" if label == cls.__name__ else f"layer {label}, a {cls.__name__}"
        if cls is keras.layers.EinsumDense and name == "kernel":
            return Kind("kernel", rule, *_axes_of_einsum(layer))
        if row := next((row for row in rows if fnmatchcase(name, row[0])), None):
            return _kind(row, rule, shape, getattr(layer, "groups", 1))
    return None


def _kind(row: Row, rule: str, shape: tuple[int, ...], groups: object) -> Kind:
    _, role, out_axes, in_axes = row
    if isinstance(groups, int) and groups > 1 and len(shape) > 2:
        in_axes = None
    return Kind(role, rule, placed(out_axes, len(shape)), placed(in_axes, len(shape)))


def _axes_of_einsum(layer: Any) -> tuple[Axes, Axes]:
    """Of "abc,cde->abde": d and e stand in the result and not in the input, c the other way round."""
    operands, _, result = str(layer.equation).replace("...", "").partition("->")
    given, _, kernel = operands.partition(",")
    return (
        tuple(place for place, letter in enumerate(kernel) if letter in result and letter not in given),
        tuple(place for place, letter in enumerate(kernel) if letter in given and letter not in result),
    )


def _by_class_name(layer: Any, name: str, shape: tuple[int, ...]) -> Kind | None:
    label = type(layer).__name__
    if NORM_CLASS.search(label) and shape:
        role: Role = "bias" if name in ("bias", "beta") else "scale"
        if role == "bias" or name in ("gamma", "scale", "weight") or is_vector(shape):
            return Kind(role, f"class name {label}", tuple(range(len(shape))))
    return None


def _by_name(name: str, shape: tuple[int, ...]) -> Kind | None:
    role = role_by_name(NAMES, name, shape)
    if role == "embedding" and len(shape) == 2:
        return Kind(role, f"name {name}", (0,), (1,))
    return Kind(role, f"name {name}") if role else None
