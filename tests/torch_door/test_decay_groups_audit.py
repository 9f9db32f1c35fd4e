"""Which parameters of well-known models decay: exactly those of a table written by hand."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from torch import nn

import normkit.torch as nk
from decayed_images import MODELS as IMAGES
from decayed_mixed import MODELS as MIXED
from decayed_text import MODELS as TEXT

MODELS = {**TEXT, **MIXED, **IMAGES}


def folded(name):
    """Numbers that stand alone in a name, as the tables write them."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)


def said(table):
    """The names of a table."""
    names = set()
    for line in table.strip().splitlines():
        layer, _, words = line.strip().partition(": ")
        stem = "" if layer == "." else f"{layer}."
        names |= {stem + (word[1:] if word.startswith("=") else f"{word}.weight") for word in words.split()}
    return names


def in_groups(groups):
    decayed = {folded(name) for group in groups for name, _ in group["params"] if group["weight_decay"]}
    kept = {folded(name) for group in groups for name, _ in group["params"] if not group["weight_decay"]}
    return decayed, kept


@pytest.mark.parametrize("name", MODELS)
def test_exactly_the_kernels_decay(name):
    transformers.logging.set_verbosity_error()
    model_class, config_class, sizes, decays, does_not = MODELS[name]
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
    groups = nk.decay_groups(model, 0.1)
    decayed, kept = in_groups(groups)
    assert decayed == said(decays)
    assert {one for one in kept if not one.endswith(".bias")} == said(does_not)
    held = [id(tensor) for group in groups for _, tensor in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)  # each once


def test_the_tables_name_enough_models():
    assert len(MODELS) >= 20


class MyNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12, bias=False)
        self.q_bias, self.temperature = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(2, 1, 1))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.proj = nn.Linear(4, 4)
        self.lora_A, self.lora_B = nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False)


class Traps(nn.Module):
    """Names that rules of thumb get wrong, in plain layers."""

    def __init__(self):
        super().__init__()
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.zeros(1, 5, 4))
        self.position_enc, self.pos_encoding = nn.Parameter(torch.zeros(5, 4)), nn.Parameter(torch.zeros(1, 5, 4))
        self.level_embed, self.codebook = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(6, 4))
        self.ln_1, self.norm1, self.my = nn.LayerNorm(4), nn.LayerNorm(4), MyNorm(4)
        self.attn, self.gamma_1, self.scale = Attention(), nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(()))
        self.downsample = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        self.debias_head, self.prelu = nn.Linear(4, 2), nn.PReLU()
        self.layernorm_mlp = nn.Linear(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.packed = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)


TRAPS = """
    attn: qkv proj lora_A lora_B
    downsample: 0
    .: debias_head layernorm_mlp
"""


def test_names_that_rules_of_thumb_get_wrong():
    model = Traps()
    groups = nk.decay_groups(model, 0.1)
    decayed = {name for group in groups for name, _ in group["params"] if group["weight_decay"]}
    assert decayed == said(TRAPS)
    told = {row.name: row for row in groups.explain().rows}
    assert told["frozen.weight"].why == "frozen"
    assert not told["packed"].chosen
    assert not {"frozen.weight", "packed"} & {name for group in groups for name, _ in group["params"]}
