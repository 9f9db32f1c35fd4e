"""One table: torch.nn layer class -> parameter -> role and axes; and what to think of parameters it does not hold.

Axes are positions in the parameter's shape. `out` has one index per unit that the layer computes (an output feature,
a channel, a gate's unit, a row of an embedding), `in` one per unit that it reads; the positions of a convolution
filter belong to neither. An axis that counts only within a group of a grouped convolution is not named: its index j
means the j-th channel of every group at once.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from torch import nn

from normkit.select.kinds import Kind, Named, Row, by_shape, is_vector, role_by_name

EVERY: tuple[int, ...] = (-1,)  # stands in the table for "all axes of the parameter"


BIAS: Row = ("bias", "bias", (0,), None)
CONV: tuple[Row, ...] = (("weight", "kernel", (0,), (1,)), BIAS)
CONV_TRANSPOSE: tuple[Row, ...] = (("weight", "kernel", (1,), (0,)), BIAS)
LOOKUP: tuple[Row, ...] = (("weight", "embedding", (0,), (1,)),)
NORM: tuple[Row, ...] = (("weight", "scale", EVERY, None), ("bias", "bias", EVERY, None))
RECURRENT: tuple[Row, ...] = (  # gates are stacked along axis 0; weight_hr projects the hidden state
    ("weight_ih*", "kernel", (0,), (1,)),
    ("weight_hh*", "kernel", (0,), (1,)),
    ("weight_hr*", "kernel", (0,), (1,)),
    ("bias_ih*", "bias", (0,), None),
    ("bias_hh*", "bias", (0,), None),
)
LAYERS: dict[type[nn.Module], tuple[Row, ...]] = {
    nn.Linear: (("weight", "kernel", (0,), (1,)), BIAS),
    nn.Bilinear: (("weight", "kernel", (0,), (1, 2)), BIAS),
    nn.Conv1d: CONV,
    nn.Conv2d: CONV,
    nn.Conv3d: CONV,
    nn.ConvTranspose1d: CONV_TRANSPOSE,
    nn.ConvTranspose2d: CONV_TRANSPOSE,
    nn.ConvTranspose3d: CONV_TRANSPOSE,
    nn.Embedding: LOOKUP,
    nn.EmbeddingBag: LOOKUP,
    nn.RNNBase: RECURRENT,
    nn.RNNCellBase: RECURRENT,
    nn.MultiheadAttention: (
        ("in_proj_weight", "kernel", (0,), (1,)),  # q, k and v stacked along axis 0
        ("[qkv]_proj_weight", "kernel", (0,), (1,)),
        ("in_proj_bias", "bias", (0,), None),
        ("bias_[kv]", "bias", (2,), None),  # [1, 1, features]: one more key and value
    ),
    nn.modules.batchnorm._NormBase: NORM,  # BatchNorm, SyncBatchNorm, InstanceNorm
    nn.GroupNorm: NORM,
    nn.LayerNorm: NORM,
    nn.RMSNorm: NORM,
    nn.PReLU: (("weight", "other", (0,), None),),
}

# transformers' Conv1D is a Linear whose weight is stored [in, out]; named here, so that it need not be imported.
TRANSPOSED_LINEAR: tuple[Row, ...] = (("weight", "kernel", (1,), (0,)), BIAS)
NAMED_CLASSES: dict[str, tuple[Row, ...]] = {
    "transformers.pytorch_utils.Conv1D": TRANSPOSED_LINEAR,
    "transformers.modeling_utils.Conv1D": TRANSPOSED_LINEAR,
}

NORM_CLASS = re.compile(r"(Layer|RMS|Rms|Batch|Group|Instance|Act|Scale)Norm|Norm(\d[dD])?$")
NORM_SCALES = ("weight", "gamma", "scale", "g")

# Names that say more than the shape does; the first that matches whole counts. True: only where the shape is a vector.
NAMES: tuple[Named, ...] = (
    (r"(pos|position|positional)_?emb(ed|edding|eddings)?|\w*(_pos|_position)_embed(ding|dings)?", "embedding", False),
    (r"(pos|position|positional)_?enc(oding|odings)?|pe", "embedding", False),
    (r"\w*relative_position_bias_table|rel_pos_[hw]|rel_pos_bias_table", "embedding", False),
    (r"A_log|dt_bias|time_(decay|first|faaaa|mix\w*|maa\w*)", "other", False),
    (r"(\w+_)?tokens?", "other", False),  # learned ones: class, mask, distillation, register, query, group, ...
    (r"class_embedding|masked_spec_embed|mask_emb|\w*latents?|probe", "other", False),
    (r"logit_(scale|bias)|temperature|tau|sinks", "other", False),
    (r"(\w+_)?emb(ed|eds|edding|eddings)?|code(vectors?|books?)", "embedding", False),
    (r"D", "other", True),
    (r"gamma(_\d+)?|\w*layer_?scale\w*|lambda_?\d*|scale|g", "scale", True),
    (r"beta|b", "bias", True),
    (r"(\w+_)?bias(es)?(_[a-z]{1,2}(_l\d+(_reverse)?)?)?", "bias", False),
)
LOOKUP_PARENT = re.compile(r"wte|wpe|shared|(\w*_)?emb(ed|eds|edding|eddings)?(_tokens|_positions)?|tok_embeddings")


def layer_class(module: nn.Module) -> type[nn.Module]:
    """The class that the user wrote: torch swaps in subclasses for parametrized and for sharded layers."""
    cls = type(module)
    while True:
        if cls.__name__.startswith("Parametrized") and "parametrizations" in module._modules:
            cls = cls.__bases__[0]
        elif cls.__name__.startswith("FSDP") and cls.__bases__[0].__name__ == "FSDPModule":
            cls = cls.__bases__[1]
        else:
            return cls


def kind_of(module: nn.Module | None, path: str, shape: tuple[int, ...]) -> Kind:
    """Role and axes of the parameter at `path` (dotted, its last segment the name in `module`).

    Asked in this order: the layer's type, its class name (norms, transformers' Conv1D, embeddings), the parameter's
    name where it says more than the shape, the shape. Without a module (a bare optimizer) only the last two speak.
    """
    leaf = path.rpartition(".")[2]
    for rule in (_by_type, _by_class_name):
        if module is not None and (kind := rule(module, leaf, shape)):
            return kind
    return _by_name(module, path, shape) or by_shape(leaf, shape)


def _by_type(module: nn.Module, leaf: str, shape: tuple[int, ...]) -> Kind | None:
    for cls in type(module).__mro__:
        rows = LAYERS.get(cls) or NAMED_CLASSES.get(f"{cls.__module__}.{cls.__qualname__}", ())
        if row := next((row for row in rows if fnmatchcase(leaf, row[0])), None):
            label = layer_class(module).__name__
            own = label == cls.__name__ or layer_class(module).__module__.startswith("torch.")
            rule = f"layer {label}" if own else f"layer {label}, a {cls.__name__}"
            return _kind(row, rule, shape, getattr(module, "groups", 1))
    return None


def _kind(row: Row, rule: str, shape: tuple[int, ...], groups: object) -> Kind:
    _, role, out_axes, in_axes = row
    if out_axes == EVERY:
        out_axes = tuple(range(len(shape)))
    if isinstance(groups, int) and groups > 1 and len(shape) > 2:
        out_axes, in_axes = (None if axes == (1,) else axes for axes in (out_axes, in_axes))
    return Kind(role, rule, out_axes, in_axes)


def _by_class_name(module: nn.Module, leaf: str, shape: tuple[int, ...]) -> Kind | None:
    label = layer_class(module).__name__
    every = tuple(range(len(shape)))
    if NORM_CLASS.search(label) and shape:
        if leaf in ("bias", "beta"):
            return Kind("bias", f"class name {label}", every)
        if leaf in NORM_SCALES or is_vector(shape):
            return Kind("scale", f"class name {label}", every)
    if label.endswith("Embedding") and leaf == "weight" and len(shape) == 2:
        return Kind("embedding", f"class name {label}", (0,), (1,))
    return None


def _by_name(module: nn.Module | None, path: str, shape: tuple[int, ...]) -> Kind | None:
    parent, _, leaf = path.rpartition(".")
    holder = parent.rpartition(".")[2]
    word = holder if leaf.isdigit() or isinstance(module, nn.ParameterList | nn.ParameterDict) else leaf
    role = role_by_name(NAMES, word, shape)
    if role is None and module is None and len(shape) == 2 and leaf == "weight" and LOOKUP_PARENT.fullmatch(holder):
        return Kind("embedding", f"name {holder}", (0,), (1,))
    return Kind(role, f"name {word}") if role else None
