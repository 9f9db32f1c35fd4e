"""One table: class name of a Keras or Sonnet layer -> weight -> role and axes; and what to think of other variables.

The classes stand here as text, since tf_keras, keras and sonnet have the same ones and none of them is imported. Axes
are counted from the end: kernels are stored [.., in, out].
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from normkit.select.kinds import EVERY, Kind, Named, Row, by_shape, placed, role_by_name

LIBRARIES = ("tf_keras", "keras", "sonnet")


BIAS: Row = ("b*", "bias", EVERY, None)
IN_OUT: tuple[Row, ...] = (("kernel", "kernel", (-1,), (-2,)), ("w", "kernel", (-1,), (-2,)), BIAS)
OUT_IN: tuple[Row, ...] = (("kernel", "kernel", (-2,), (-1,)), ("w", "kernel", (-2,), (-1,)), BIAS)
DEPTHWISE: tuple[Row, ...] = (("*kernel", "kernel", (-2, -1), (-2,)), BIAS)
SEPARABLE: tuple[Row, ...] = (("pointwise_kernel", "kernel", (-1,), (-2,)), *DEPTHWISE)
CELL: tuple[Row, ...] = (("*kernel", "kernel", (-1,), (-2,)), ("w_?", "kernel", (-1,), (-2,)), BIAS)
LOOKUP: tuple[Row, ...] = (("embeddings", "embedding", (0,), (1,)),)
NORM: tuple[Row, ...] = (
    ("gamma", "scale", EVERY, None),
    ("scale", "scale", EVERY, None),
    ("beta", "bias", EVERY, None),
)
OFFSET: tuple[Row, ...] = (*NORM, ("offset", "bias", EVERY, None))
LAYERS: dict[str, tuple[Row, ...]] = {
    "Dense": IN_OUT,
    "Conv1D": IN_OUT,
    "Conv2D": IN_OUT,
    "Conv3D": IN_OUT,
    "Conv1DTranspose": OUT_IN,
    "Conv2DTranspose": OUT_IN,
    "Conv3DTranspose": OUT_IN,
    "DepthwiseConv1D": DEPTHWISE,
    "DepthwiseConv2D": DEPTHWISE,
    "SeparableConv1D": SEPARABLE,
    "SeparableConv2D": SEPARABLE,
    "EinsumDense": (BIAS,),
    "Embedding": LOOKUP,
    "Embed": LOOKUP,
    "SimpleRNNCell": CELL,
    "LSTMCell": CELL,
    "GRUCell": CELL,
    "BatchNormalization": NORM,
    "LayerNormalization": NORM,
    "GroupNormalization": NORM,
    "PReLU": (("alpha", "other", EVERY, None),),
    "Linear": IN_OUT,
    "ConvND": IN_OUT,
    "ConvNDTranspose": OUT_IN,
    "LSTM": CELL,
    "GRU": CELL,
    "VanillaRNN": CELL,
    "BaseBatchNorm": OFFSET,
    "LayerNorm": OFFSET,
}

# Names that say more than the shape does; the first that matches whole counts. True: only where the shape is a vector.
NAMES: tuple[Named, ...] = (
    (r"(\w+_)?emb(ed|edding|eddings|eds)?(_table|_matrix)?", "embedding", False),
    (r"\w*(cls|class|mask|dist|register|query|prompt)_tokens?|logit_(scale|bias)|temperature|tau", "other", False),
    (r"gamma(_\d+)?|\w*layer_?scale\w*|scale|g", "scale", True),
    (r"beta|b\d*|offset|(\w+_)?bias(es)?", "bias", True),
)


def kind_of(owner: Any, name: str, shape: tuple[int, ...], *, learned: bool = True) -> Kind:
    """Role and axes of the variable `name` of `owner`: by the owner's class, else by name, else by shape."""
    if kind := _by_class(owner, name, shape):
        return kind
    if not learned and _is_of_library(type(owner)):
        return Kind("buffer", "not trainable")
    return _by_name(name, shape) or by_shape(name, shape)


def _is_of_library(cls: type) -> bool:
    return any(base.__module__.partition(".")[0] in LIBRARIES for base in cls.__mro__)


def _by_class(owner: Any, name: str, shape: tuple[int, ...]) -> Kind | None:
    label = type(owner).__name__
    for cls in type(owner).__mro__:
        rows = LAYERS.get(cls.__name__, ()) if cls.__module__.partition(".")[0] in LIBRARIES else ()
        if row := next((row for row in rows if fnmatchcase(name, row[0])), None):
            rule = f"layer {label}" if label == cls.__name__ else f"layer {label}, a {cls.__name__}"
            groups = getattr(owner, "groups", 1)
            known_in = None if isinstance(groups, int) and groups > 1 and len(shape) > 2 else row[3]
            return Kind(row[1], rule, placed(row[2], len(shape)), placed(known_in, len(shape)))
    return None


def _by_name(name: str, shape: tuple[int, ...]) -> Kind | None:
    word = name.strip("_")
    role = role_by_name(NAMES, word, shape)
    if role == "embedding" and len(shape) == 2:
        return Kind(role, f"name {word}", (0,), (1,))
    return Kind(role, f"name {word}") if role else None
