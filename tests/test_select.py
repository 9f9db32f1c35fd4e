"""The language of `select`, on a small made-up network; no framework takes part."""

from __future__ import annotations

import re

import numpy as np
import pytest

from normkit.errors import ArgumentError
from normkit.select import FOLD_ABOVE, select
from normkit.types import Param


class Conv2d: ...


class DepthwiseConv2d(Conv2d): ...


class Linear: ...


class Embedding: ...


class BatchNorm2d: ...


def param(name, role, layer=None, *, shape=(4, 4), trainable=True, aliases=(), part="whole"):
    label = layer.__name__ if layer else ""
    return Param(name, shape, "float32", role, aliases, label, trainable=trainable, part=part, layer_type=layer)


PARAMS = [
    param("embed.weight", "embedding", Embedding, aliases=("head.decoder.weight",)),
    param("conv1.weight", "kernel", Conv2d),
    param("conv1.bias", "bias", Conv2d),
    param("bn1.weight", "scale", BatchNorm2d),
    param("bn1.bias", "bias", BatchNorm2d),
    param("bn1.running_mean", "buffer", BatchNorm2d, trainable=False),
    param("layer1.0.conv1.weight", "kernel", DepthwiseConv2d),
    param("layer1.0.conv1.bias", "bias", DepthwiseConv2d),
    param("encoder.attn.weight", "kernel", Linear),
    param("encoder.cls_token", "other"),
    param("encoder.frozen.weight", "kernel", Linear, trainable=False),
    param("head.fc.weight", "kernel", Linear),
    param("head.fc.bias", "bias", Linear),
]
NAMES = [p.name for p in PARAMS]
KERNELS = ["conv1.weight", "layer1.0.conv1.weight", "encoder.attn.weight", "head.fc.weight"]
BIASES = ["conv1.bias", "bn1.bias", "layer1.0.conv1.bias", "head.fc.bias"]
TRAINABLE = [p.name for p in PARAMS if p.trainable]


def is_kernel(p):
    return p.role == "kernel"


def names_of(rule, default="kernel", params=PARAMS):
    return [p.name for p in select(params, rule, default=default).chosen]


CASES = {
    "default role": (None, "kernel", KERNELS),
    "default roles": (None, ("kernel", "bias"), [n for n in NAMES if n in KERNELS + BIASES]),
    "default of record": (None, "trainable", TRAINABLE),
    "default all": (None, "all", NAMES),
    "role": ("bias", "kernel", BIASES),
    "role beside the default": ("bias", "trainable", BIASES),
    "roles are or-ed": (["bias", "scale"], "kernel", ["conv1.bias", "bn1.weight", *BIASES[1:]]),
    "buffer, though none is trained": ("buffer", "kernel", ["bn1.running_mean"]),
    "other": ("other", "kernel", ["encoder.cls_token"]),
    "all takes buffers and frozen ones": ("all", "kernel", NAMES),
    "a name keeps the default role": ("conv*", "kernel", ["conv1.weight", "layer1.0.conv1.weight"]),
    "a name under record": ("conv*", "trainable", [n for n in NAMES if "conv1" in n]),
    "a pattern may start at any dot": ("attn.*", "kernel", ["encoder.attn.weight"]),
    "a slash is a dot": ("layer1/0/conv1/*", "kernel", ["layer1.0.conv1.weight"]),
    "a star spans dots": ("layer1*weight", "kernel", ["layer1.0.conv1.weight"]),
    "a question mark, a set": (["conv?.weight", "head.[fg]c.*"], "kernel", [KERNELS[0], KERNELS[1], KERNELS[3]]),
    "names are or-ed": (["conv1.*", "head.*"], "kernel", [KERNELS[0], KERNELS[1], KERNELS[3]]),
    "roles and names": (["kernel", "encoder.*"], "bias", ["encoder.attn.weight"]),
    "all and names": (["head.*", "all"], "kernel", ["embed.weight", "head.fc.weight", "head.fc.bias"]),
    "an alias is a name": (["head.decoder.*", "embedding"], "kernel", ["embed.weight"]),
    "name of a single bias": (["*.bias", "bias"], "kernel", BIASES),
    "taken away": ("!head.*", "kernel", KERNELS[:3]),
    "taken away from a role": (["bias", "!bn1*"], "kernel", ["conv1.bias", "layer1.0.conv1.bias", "head.fc.bias"]),
    "taken away wherever it stands": (["!conv1.*", "conv*", "head.*"], "kernel", ["head.fc.weight"]),
    "a role taken away": ("!bias", "trainable", [n for n in TRAINABLE if n not in BIASES]),
    "an alias taken away": ("!head.*", "trainable", [n for n in TRAINABLE if "head" not in n and "embed" not in n]),
    "a class, subclasses too": (Conv2d, "kernel", ["conv1.weight", "layer1.0.conv1.weight"]),
    "a class and a role": ([Conv2d, "bias"], "kernel", ["conv1.bias", "layer1.0.conv1.bias"]),
    "a class or a name": ([DepthwiseConv2d, "head.*"], "kernel", ["layer1.0.conv1.weight", "head.fc.weight"]),
    "a callable decides alone": (lambda p: "frozen" in p.name or p.role == "buffer", "kernel", [NAMES[5], NAMES[10]]),
    "a callable with a role": ([lambda p: p.name.startswith("head"), "bias"], "kernel", ["head.fc.bias"]),
    "a callable or a name": ([lambda p: p.role == "scale", "attn*"], "kernel", ["bn1.weight", "encoder.attn.weight"]),
    "a callable, but": ([is_kernel, "!encoder.*"], "bias", [KERNELS[0], KERNELS[1], KERNELS[3]]),
    "numpy's bool": (lambda p: np.bool_(p.role == "scale"), "kernel", ["bn1.weight"]),
    "a tuple, a set": (("bias", "head.*"), "kernel", ["head.fc.bias"]),
}


@pytest.mark.parametrize(("rule", "default", "expected"), CASES.values(), ids=CASES)
def test_select_chooses(rule, default, expected):
    assert names_of(rule, default) == expected


REFUSED = {
    "unmatched": ("encodr.*", "select='encodr.*' matches none of 13 parameters; close names: encoder."),
    "not to the end": (
        "head.fc",
        "select='head.fc' matches none of 13 parameters; a pattern reaches to the end of a name: 'head.fc.*' matches 2",
    ),
    "in other letters": ("Conv1*", "none of 13 parameters; case counts: it would match conv1.weight in other letters"),
    "nearly a role": ("kernels", "select='kernels' matches none of 13 parameters; did you mean the role 'kernel'?"),
    "nothing near": ("zzzz", "matches none of 13 parameters; names are such as embed.weight, conv1.weight, conv1.bias"),
    "one of several": (["conv*", "zzzz"], "select='zzzz' matches none of 13 parameters"),
    "nothing to take away": ("!zzzz", "select='!zzzz' matches none of 13 parameters"),
    "taken away, not to the end": ("!head", "reaches to the end of a name: '!head.*' matches 3"),
    "another role": (
        "*.bias",
        "select='*.bias' matches 4 parameters, none with role kernel; add the role, as in select=['bias', '*.bias']",
    ),
    "another role than asked": (["scale", "conv*"], "matches 4 parameters, none with role scale; add the role"),
    "frozen": (
        "encoder.frozen.*",
        "matches 1 parameter, which is frozen; add 'all' to take frozen ones, as in select=['all', 'encoder.frozen.*']",
    ),
    "a class of another role": (BatchNorm2d, "select=BatchNorm2d matches 3 parameters, none with role kernel"),
    "a class not there": (
        dict,
        "select=dict is the layer of none of 13 parameters; layers that own some: Embedding, Conv2d, BatchNorm2d",
    ),
    "nothing left": (["conv*", "!conv*"], "select=['conv*', '!conv*'] leaves nothing of 13 parameters: 9 not matched"),
    "a callable without luck": (lambda p: False, "leaves nothing of 13 parameters: 13 not matched"),
    "a callable without answer": (lambda p: None, "returned None for embed.weight; it must return True or False"),
    "a match instead of a bool": (lambda p: re.match("e", p.name), "returned <re.Match object"),
    "a number": (3, "select=3 is of type int; expected a role, a name pattern, a layer class, a callable, or a list"),
    "a list in a list": ([["conv*"]], "select=['conv*'] is of type list; expected a role"),
    "bytes": (b"conv*", "select=b'conv*' is of type bytes; expected a role"),
    "an empty list": ([], "select=[] is empty; give roles, names or layer classes, or leave it out"),
    "an empty name": ("", "select='' is an empty name; give a pattern such as 'encoder.*'"),
    "a blank name": ("  ", "select='  ' is an empty name"),
    "a lone mark": ("!", "select='!' takes nothing away; write one name pattern or role after one '!'"),
    "two marks": ("!!", "select='!!' takes nothing away"),
}


@pytest.mark.parametrize(("rule", "sentence"), REFUSED.values(), ids=REFUSED)
def test_select_refuses(rule, sentence):
    with pytest.raises(ArgumentError, match=re.escape(sentence)) as caught:
        select(PARAMS, rule, default="kernel")
    assert "\n" not in str(caught.value)


def test_select_refuses_a_layer_instead_of_its_class():
    class Module:
        def __call__(self):
            return None

    class Dense(Module): ...

    with pytest.raises(
        ArgumentError, match=r"select=Dense\(...\) is a layer; give the class Dense, or the name of this"
    ):
        select(PARAMS, Dense(), default="kernel")


def test_a_role_nobody_has_is_refused_with_the_roles_there_are():
    linear = [p for p in PARAMS if p.layer == "Linear"]
    with pytest.raises(ArgumentError, match=r"select='scale' finds no parameter with that role among 4; here: kernel"):
        select(linear, "scale", default="kernel")
    with pytest.raises(ArgumentError, match=r"select='!scale' takes nothing away: none of 4 parameters has that role"):
        select(linear, "!scale", default="kernel")


def test_a_role_of_frozen_parameters_only_is_refused_and_names_all():
    frozen = [param("a.weight", "kernel", trainable=False), param("b.weight", "kernel", trainable=False)]
    sentence = "select='kernel' finds 2 parameters with that role, all frozen; only 'all' takes frozen ones"
    with pytest.raises(ArgumentError, match=sentence):
        select(frozen, "kernel", default="trainable")
    assert names_of("all", "kernel", frozen) == ["a.weight", "b.weight"]


def test_a_name_of_a_buffer_under_record_asks_for_its_role():
    with pytest.raises(
        ArgumentError, match=r"matches 1 parameter, none trainable; add the role, as in select=\['buffer'"
    ):
        select(PARAMS, "running_*", default="trainable")


def test_nothing_at_all_is_no_error_until_something_is_asked_for():
    assert select([], None, default="kernel").chosen == ()
    assert select([], "all", default="kernel").chosen == ()
    with pytest.raises(ArgumentError, match=r"select='conv\*' matches nothing: there are no parameters"):
        select([], "conv*", default="kernel")


def test_a_class_is_found_by_its_name_where_the_class_itself_is_not_known():
    read = [Param("a.weight", (2, 2), "float32", "kernel", layer="Linear")]
    assert names_of(Linear, params=read) == ["a.weight"]


def test_parts_and_the_effective_weight_are_told_apart_by_name():
    parts = [
        param(f"conv.weight{end}", "kernel", part=part) for end, part in (("", "effective"), (".g", "g"), (".v", "v"))
    ]
    assert names_of("conv.weight", params=parts) == ["conv.weight"]
    assert names_of("*.g", params=parts) == ["conv.weight.g"]
    assert names_of("conv.*", params=parts) == ["conv.weight", "conv.weight.g", "conv.weight.v"]


def test_explain_gives_a_reason_for_every_parameter():
    table = select(PARAMS, ["conv*", "head.*", "!head.fc.*"], default="kernel").explain()
    why = {row.name: (row.chosen, row.why) for row in table.rows}
    assert len(why) == len(PARAMS)
    assert why["conv1.weight"] == (True, "'conv*', role kernel by default")
    assert why["conv1.bias"] == (False, "role bias")
    assert why["encoder.attn.weight"] == (False, "not matched")
    assert why["head.fc.weight"] == (False, "taken away by '!head.fc.*'")
    assert why["embed.weight = head.decoder.weight"] == (False, "role embedding")


def test_explain_prints_aligned_columns_and_a_summary():
    lines = str(select(PARAMS, None, default="kernel").explain()).splitlines()
    assert len(lines) == len(PARAMS) + 2
    assert len({line.index(" + ") if " + " in line else line.index(" - ") for line in lines[1:-1]}) == 1
    left = "4 role bias, 1 role embedding, 1 role scale, 1 role buffer, 1 role other, 1 frozen"
    assert lines[-1] == f"4 of 13 parameters chosen; not: {left}"


def test_explain_folds_repeated_layers_of_a_large_model():
    many = [param(f"layers.{i}.fc{n}.weight", "kernel") for i in range(FOLD_ABOVE) for n in (1, 2)]
    table = select(many, None, default="kernel").explain()
    lines = str(table).splitlines()
    assert len(table.rows) == 2 * FOLD_ABOVE
    assert len(lines) == 4
    assert lines[1].startswith(f"layers.*.fc1.weight ({FOLD_ABOVE})")


@pytest.mark.parametrize("rule", [np.zeros((300, 300)), [np.zeros((300, 300))]])
def test_an_array_is_refused_without_its_numbers(rule):
    with pytest.raises(ArgumentError) as refused:
        select([param("fc.weight", "kernel")], rule, default="kernel")
    assert str(refused.value).startswith("select=<ndarray of shape (300, 300)> is of type ndarray; expected a role")
