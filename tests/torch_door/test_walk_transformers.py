"""Roles and ties in tiny models of transformers, built from their configurations without a download."""

from __future__ import annotations

import pytest

transformers = pytest.importorskip("transformers")

from normkit.torch.walk import walk

BLOCKS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
BUILD = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", {**BLOCKS, "vocab_size": 32}),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 32},
    ),
    "bert": ("BertForMaskedLM", "BertConfig", {**BLOCKS, "vocab_size": 32}),
    "vit": ("ViTForImageClassification", "ViTConfig", {**BLOCKS, "image_size": 16, "patch_size": 8}),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 32, "state_size": 4},
    ),
}
TIED = {
    "gpt2": ("transformer.wte.weight", ("lm_head.weight",)),
    "t5": ("shared.weight", ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")),
    "bert": ("bert.embeddings.word_embeddings.weight", ("cls.predictions.decoder.weight",)),
    "mamba": ("backbone.embeddings.weight", ("lm_head.weight",)),
}


@pytest.fixture(scope="module", params=BUILD)
def params(request):
    transformers.logging.set_verbosity_error()
    model_class, config_class, sizes = BUILD[request.param]
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
    return request.param, {place.param.name: place.param for place in walk(model)}


def test_every_weight_of_a_norm_is_a_scale(params):
    _, found = params
    weights = [p for p in found.values() if "norm" in p.layer.lower() and p.name.endswith(".weight")]
    assert weights
    assert {p.role for p in weights} == {"scale"}


def test_nothing_with_one_axis_is_a_kernel_and_every_bias_is_a_bias(params):
    _, found = params
    assert not [p.name for p in found.values() if p.role == "kernel" and len(p.shape) < 2]
    biases = [p for p in found.values() if p.name.endswith(".bias") and p.role != "buffer"]
    assert {p.role for p in biases} <= {"bias"}


def test_every_matrix_of_a_layer_is_a_kernel(params):
    _, found = params
    matrices = [p for p in found.values() if p.layer in ("Linear", "Conv1D", "Conv1d", "Conv2d") and len(p.shape) > 1]
    assert matrices
    assert {p.role for p in matrices} == {"kernel"}


def test_a_tied_embedding_and_head_is_one_embedding(params):
    name, found = params
    if name not in TIED:
        assert not [p for p in found.values() if p.aliases and p.role == "embedding"]
        return
    canonical, aliases = TIED[name]
    assert found[canonical].role == "embedding"
    assert found[canonical].aliases == aliases
    assert not set(aliases) & set(found)


@pytest.mark.parametrize(
    ("params", "name", "role", "out_axes", "in_axes"),
    [
        ("gpt2", "transformer.h.0.attn.c_attn.weight", "kernel", (1,), (0,)),
        ("vit", "vit.embeddings.cls_token", "other", None, None),
        ("vit", "vit.embeddings.position_embeddings", "embedding", None, None),
        ("mamba", "backbone.layers.0.mixer.A_log", "other", None, None),
        ("mamba", "backbone.layers.0.mixer.conv1d.weight", "kernel", (0,), None),
        ("bert", "cls.predictions.bias", "bias", (0,), None),
    ],
    indirect=["params"],
)
def test_role_and_axes_of(params, name, role, out_axes, in_axes):
    param = params[1][name]
    assert (param.role, param.out_axes, param.in_axes) == (role, out_axes, in_axes)
