"""The table of layers: every layer of torch.nn, the norms of transformers, and what stands in no table."""

from __future__ import annotations

import inspect

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from normkit.torch.layers import kind_of
from normkit.torch.walk import walk

# How to build each class of torch.nn that needs arguments; what is missing here and needs some is found by the test.
ARGUMENTS = {
    "Linear": (3, 4),
    "LazyLinear": (4,),
    "NonDynamicallyQuantizableLinear": (3, 4),
    "Bilinear": (3, 4, 5),
    **{f"Conv{n}d": (2, 6, 3) for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": (2, 6, 3) for n in (1, 2, 3)},
    **{f"LazyConv{n}d": (6, 3) for n in (1, 2, 3)},
    **{f"LazyConvTranspose{n}d": (6, 3) for n in (1, 2, 3)},
    "Embedding": (5, 3),
    "EmbeddingBag": (5, 3),
    "RNN": (3, 4, 2),
    "LSTM": (3, 4, 2),
    "GRU": (3, 4, 2),
    "RNNBase": ("LSTM", 3, 4),
    "RNNCellBase": (3, 4, True, 4),
    "RNNCell": (3, 4),
    "LSTMCell": (3, 4),
    "GRUCell": (3, 4),
    "MultiheadAttention": (4, 2),
    "TransformerEncoderLayer": (4, 2, 8),
    "TransformerDecoderLayer": (4, 2, 8),
    "Transformer": (4, 2, 1, 1, 8, 0.1, "relu", None, None, 1e-5, True),
    **{f"BatchNorm{n}d": (4,) for n in (1, 2, 3)},
    **{f"InstanceNorm{n}d": (4, 1e-5, 0.1, True) for n in (1, 2, 3)},
    "SyncBatchNorm": (4,),
    "_NormBase": (4,),
    "_BatchNorm": (4,),
    "_InstanceNorm": (4, 1e-5, 0.1, True),
    "GroupNorm": (2, 4),
    "LayerNorm": ((3, 4),),
    "RMSNorm": (4,),
    "AdaptiveLogSoftmaxWithLoss": (16, 20, [5, 10], 2.0),
    "LinearCrossEntropyLoss": (3, 4),
}

# Abstract bases and old names that warn.
LEFT_OUT = {"Container", "NLLLoss2d", "_ConvNd", "_ConvTransposeNd", "_ConvTransposeMixin"}


def module_classes():
    found, todo = set(), [nn.Module]
    while todo:
        for cls in todo.pop().__subclasses__():
            if cls not in found:
                found.add(cls)
                todo.append(cls)
    layers = [cls for cls in found if cls.__module__.startswith("torch.nn.modules.") and cls.__name__ not in LEFT_OUT]
    return sorted(layers, key=lambda cls: cls.__qualname__)


def built(cls):
    if cls.__name__ in ARGUMENTS:
        return cls(*ARGUMENTS[cls.__name__])
    try:
        return cls()
    except (TypeError, NotImplementedError):
        return None


@pytest.mark.parametrize("cls", module_classes(), ids=lambda cls: cls.__name__)
def test_every_layer_of_torch_has_its_roles_from_the_table(cls):
    layer = built(cls)
    if layer is None:  # it needs arguments, and ARGUMENTS gives none: then its source makes no parameter
        assert "Parameter(" not in inspect.getsource(cls), f"{cls.__name__} owns parameters: add it to ARGUMENTS"
        return
    guessed = [
        (place.param.name, place.param.rule)
        for place in walk(layer)
        if not place.param.rule.startswith("layer ") and place.param.role != "buffer"
    ]
    assert not guessed


def axes(layer):
    return {p.name: (p.role, p.shape, p.out_axes, p.in_axes) for p in (place.param for place in walk(layer))}


AXES = [
    (nn.Linear(3, 4), "weight", ("kernel", (4, 3), (0,), (1,))),
    (nn.Linear(3, 4), "bias", ("bias", (4,), (0,), None)),
    (nn.Bilinear(3, 4, 5), "weight", ("kernel", (5, 3, 4), (0,), (1, 2))),
    (nn.Conv2d(2, 6, 3), "weight", ("kernel", (6, 2, 3, 3), (0,), (1,))),
    (nn.Conv2d(2, 6, 3, groups=2), "weight", ("kernel", (6, 1, 3, 3), (0,), None)),
    (nn.ConvTranspose2d(2, 6, 3), "weight", ("kernel", (2, 6, 3, 3), (1,), (0,))),
    (nn.ConvTranspose2d(2, 6, 3, groups=2), "weight", ("kernel", (2, 3, 3, 3), None, (0,))),
    (nn.Embedding(5, 3), "weight", ("embedding", (5, 3), (0,), (1,))),
    (nn.LSTM(3, 4, proj_size=2), "weight_ih_l0", ("kernel", (16, 3), (0,), (1,))),
    (nn.LSTM(3, 4, proj_size=2), "weight_hr_l0", ("kernel", (2, 4), (0,), (1,))),
    (nn.LSTM(3, 4, bidirectional=True), "bias_hh_l0_reverse", ("bias", (16,), (0,), None)),
    (nn.GRUCell(3, 4), "weight_hh", ("kernel", (12, 4), (0,), (1,))),
    (nn.MultiheadAttention(4, 2), "in_proj_weight", ("kernel", (12, 4), (0,), (1,))),
    (nn.MultiheadAttention(4, 2, kdim=3, vdim=5), "k_proj_weight", ("kernel", (4, 3), (0,), (1,))),
    (nn.MultiheadAttention(4, 2, add_bias_kv=True), "bias_k", ("bias", (1, 1, 4), (2,), None)),
    (nn.MultiheadAttention(4, 2), "out_proj.weight", ("kernel", (4, 4), (0,), (1,))),
    (nn.LayerNorm((3, 4)), "weight", ("scale", (3, 4), (0, 1), None)),
    (nn.BatchNorm1d(4), "weight", ("scale", (4,), (0,), None)),
    (nn.PReLU(4), "weight", ("other", (4,), (0,), None)),
]


@pytest.mark.parametrize(("layer", "name", "expected"), AXES, ids=lambda x: str(x)[:40])
def test_role_and_axes_of(layer, name, expected):
    assert axes(layer)[name] == expected


class Holder(nn.Module):
    """A user's own module that holds parameters itself."""


class MyRMSNorm(Holder): ...


class T5LayerNorm(Holder): ...


class FrozenNorm2d(Holder): ...


class VocabParallelEmbedding(Holder): ...


class WeightNormedThing(Holder): ...


FALLBACKS = [
    (MyRMSNorm, "weight", (8,), "scale"),
    (T5LayerNorm, "weight", (8,), "scale"),
    (T5LayerNorm, "bias", (8,), "bias"),
    (T5LayerNorm, "gamma", (1, 8, 1, 1), "scale"),
    (T5LayerNorm, "weight", (3, 8), "scale"),
    (FrozenNorm2d, "scale", (8,), "scale"),
    (WeightNormedThing, "weight", (8, 8), "kernel"),
    (VocabParallelEmbedding, "weight", (8, 4), "embedding"),
    (Holder, "weight", (8,), "scale"),
    (Holder, "weight", (8, 4), "kernel"),
    (Holder, "weight", (1, 8), "kernel"),
    (Holder, "weight", (1, 1, 1, 8), "scale"),
    (Holder, "bias", (8,), "bias"),
    (Holder, "down_proj_bias", (4, 8), "bias"),
    (Holder, "debias_head", (4, 8), "kernel"),
    (Holder, "gate_up_proj", (2, 4, 8), "kernel"),
    (Holder, "lora_A", (2, 8), "kernel"),
    (Holder, "lora_B", (8, 2), "kernel"),
    (Holder, "cls_token", (1, 1, 8), "other"),
    (Holder, "register_tokens", (1, 4, 8), "other"),
    (Holder, "pos_embed", (1, 5, 8), "embedding"),
    (Holder, "position_embeddings", (1, 5, 8), "embedding"),
    (Holder, "relative_position_bias_table", (9, 2), "embedding"),
    (Holder, "A_log", (8, 4), "other"),
    (Holder, "dt_bias", (8,), "other"),
    (Holder, "D", (8,), "other"),
    (Holder, "D", (8, 4), "kernel"),
    (Holder, "logit_scale", (), "other"),
    (Holder, "bias", (), "other"),
    (Holder, "gamma", (8,), "scale"),
    (Holder, "layer_scale_parameter", (8,), "scale"),
    (Holder, "beta", (8,), "bias"),
    (Holder, "masked_spec_embed", (8,), "other"),
]


@pytest.mark.parametrize(("cls", "name", "shape", "role"), FALLBACKS)
def test_role_of_a_parameter_in_no_table(cls, name, shape, role):
    kind = kind_of(cls(), f"block.{name}", shape)
    assert kind.role == role
    assert not kind.rule.startswith("layer ")
    assert kind.rule


NAMED = [
    ("transformer.h.0.ln_1.weight", (8,), "scale"),
    ("transformer.wte.weight", (16, 8), "embedding"),
    ("model.embed_tokens.weight", (16, 8), "embedding"),
    ("debias_head.weight", (16, 8), "kernel"),
    ("head.bias", (8,), "bias"),
    ("group0.0", (8, 4), "kernel"),
    ("group0.1", (8,), "other"),
]


@pytest.mark.parametrize(("name", "shape", "role"), NAMED)
def test_role_without_a_layer(name, shape, role):
    assert kind_of(None, name, shape).role == role


def test_the_layer_counts_before_the_name():
    model = nn.ModuleDict(
        {"debias_head": nn.Linear(4, 3), "rel_pos_bias_table": nn.Embedding(4, 3), "ln_1": nn.Linear(4, 4)}
    )
    roles = {place.param.name: place.param.role for place in walk(model)}
    assert roles["debias_head.weight"] == "kernel"
    assert roles["rel_pos_bias_table.weight"] == "embedding"
    assert roles["ln_1.weight"] == "kernel"


def test_parameters_in_lists_and_dicts_are_known_by_the_name_of_their_holder():
    model = nn.Module()
    model.cls_tokens = nn.ParameterList([nn.Parameter(torch.zeros(1, 4))])
    model.lora_embedding_A = nn.ParameterDict({"default": nn.Parameter(torch.zeros(2, 4))})
    roles = {place.param.name: place.param.role for place in walk(model)}
    assert roles == {"cls_tokens.0": "other", "lora_embedding_A.default": "kernel"}


def test_a_subclass_says_what_it_is_a_kind_of():
    class Mine(nn.Linear): ...

    (weight,) = [place.param for place in walk(Mine(3, 4)) if place.param.name == "weight"]
    assert (weight.rule, weight.layer, weight.layer_type) == ("layer Mine, a Linear", "Mine", Mine)
