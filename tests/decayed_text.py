"""Which parameters of language models decay, and which do not: tiny models of transformers.

{model: (class, configuration, its sizes, what decays, what does not)}. A line is a layer and its parameters: `dense` is
dense.weight, `=A_log` the parameter A_log itself; `*` is any number. Biases, which never decay, are left out.
"""

BLOCK = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 32}
LLAMA = {**BLOCK, "num_key_value_heads": 1, "max_position_embeddings": 16, "pad_token_id": 0, "head_dim": 8}

MODELS = {
    "bert": (
        "BertForMaskedLM",
        "BertConfig",
        BLOCK,
        """
        bert.encoder.layer.*.attention.self: query key value
        bert.encoder.layer.*.attention.output: dense
        bert.encoder.layer.*.intermediate: dense
        bert.encoder.layer.*.output: dense
        cls.predictions.transform: dense
        """,
        """
        bert.embeddings: word_embeddings position_embeddings token_type_embeddings LayerNorm
        bert.encoder.layer.*.attention.output: LayerNorm
        bert.encoder.layer.*.output: LayerNorm
        cls.predictions.transform: LayerNorm
        """,
    ),
    "roberta": (
        "RobertaForSequenceClassification",
        "RobertaConfig",
        BLOCK,
        """
        roberta.encoder.layer.*.attention.self: query key value
        roberta.encoder.layer.*.attention.output: dense
        roberta.encoder.layer.*.intermediate: dense
        roberta.encoder.layer.*.output: dense
        classifier: dense out_proj
        """,
        """
        roberta.embeddings: word_embeddings token_type_embeddings LayerNorm position_embeddings
        roberta.encoder.layer.*.attention.output: LayerNorm
        roberta.encoder.layer.*.output: LayerNorm
        """,
    ),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "vocab_size": 32},
        """
        distilbert.transformer.layer.*.attention: q_lin k_lin v_lin out_lin
        distilbert.transformer.layer.*.ffn: lin1 lin2
        .: vocab_transform
        """,
        """
        distilbert.embeddings: word_embeddings position_embeddings LayerNorm
        distilbert.transformer.layer.*: sa_layer_norm output_layer_norm
        .: vocab_layer_norm
        """,
    ),
    "albert": (
        "AlbertForMaskedLM",
        "AlbertConfig",
        {**BLOCK, "embedding_size": 8},
        """
        albert.encoder: embedding_hidden_mapping_in
        albert.encoder.albert_layer_groups.*.albert_layers.*.attention: query key value dense
        albert.encoder.albert_layer_groups.*.albert_layers.*: ffn ffn_output
        predictions: dense
        """,
        """
        albert.embeddings: word_embeddings position_embeddings token_type_embeddings LayerNorm
        albert.encoder.albert_layer_groups.*.albert_layers.*: full_layer_layer_norm
        albert.encoder.albert_layer_groups.*.albert_layers.*.attention: LayerNorm
        predictions: LayerNorm
        """,
    ),
    "deberta_v2": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {
            **BLOCK,
            "relative_attention": True,
            "position_buckets": 4,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": False,
            "conv_kernel_size": 3,
        },
        """
        deberta.encoder.layer.*.attention.self: query_proj key_proj value_proj pos_key_proj pos_query_proj
        deberta.encoder.layer.*.attention.output: dense
        deberta.encoder.layer.*.intermediate: dense
        deberta.encoder.layer.*.output: dense
        deberta.encoder.conv: conv
        pooler: dense
        .: classifier
        """,
        """
        deberta.embeddings: word_embeddings position_embeddings LayerNorm
        deberta.encoder.layer.*.attention.output: LayerNorm
        deberta.encoder.layer.*.output: LayerNorm
        deberta.encoder: rel_embeddings LayerNorm
        deberta.encoder.conv: LayerNorm
        """,
    ),
    "xlnet": (
        "XLNetLMHeadModel",
        "XLNetConfig",
        {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32, "vocab_size": 32},
        """
        transformer.layer.*.rel_attn: =q =k =v =o =r
        transformer.layer.*.ff: layer_1 layer_2
        """,
        """
        transformer: =mask_emb word_embedding
        transformer.layer.*.rel_attn: =r_r_bias =r_s_bias =r_w_bias =seg_embed layer_norm
        transformer.layer.*.ff: layer_norm
        """,
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32, "n_positions": 8},
        """
        transformer.h.*.attn: c_attn c_proj
        transformer.h.*.mlp: c_fc c_proj
        """,
        """
        transformer: wte wpe ln_f
        transformer.h.*: ln_1 ln_2
        """,
    ),
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        LLAMA,
        """
        model.layers.*.self_attn: q_proj k_proj v_proj o_proj
        model.layers.*.mlp: gate_proj up_proj down_proj
        .: lm_head
        """,
        """
        model: embed_tokens norm
        model.layers.*: input_layernorm post_attention_layernorm
        """,
    ),
    "qwen3": (
        "Qwen3ForCausalLM",
        "Qwen3Config",
        LLAMA,
        """
        model.layers.*.self_attn: q_proj k_proj v_proj o_proj
        model.layers.*.mlp: gate_proj up_proj down_proj
        .: lm_head
        """,
        """
        model: embed_tokens norm
        model.layers.*.self_attn: q_norm k_norm
        model.layers.*: input_layernorm post_attention_layernorm
        """,
    ),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        LLAMA,
        """
        model.layers.*.self_attn: q_proj k_proj v_proj o_proj
        model.layers.*.mlp: gate_proj up_proj down_proj
        """,
        """
        model: embed_tokens norm
        model.layers.*: input_layernorm post_attention_layernorm pre_feedforward_layernorm post_feedforward_layernorm
        """,
    ),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        {**LLAMA, "num_local_experts": 2},
        """
        model.layers.*.self_attn: q_proj k_proj v_proj o_proj
        model.layers.*.mlp: gate
        model.layers.*.mlp.experts: =gate_up_proj =down_proj
        .: lm_head
        """,
        """
        model: embed_tokens norm
        model.layers.*: input_layernorm post_attention_layernorm
        """,
    ),
    "gpt_oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        {**LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"]},
        """
        model.layers.*.self_attn: q_proj k_proj v_proj o_proj
        model.layers.*.mlp: router
        model.layers.*.mlp.experts: =gate_up_proj =down_proj
        .: lm_head
        """,
        """
        model: embed_tokens norm
        model.layers.*.self_attn: =sinks
        model.layers.*.mlp.experts: =gate_up_proj_bias =down_proj_bias
        model.layers.*: input_layernorm post_attention_layernorm
        """,
    ),
    "recurrent_gemma": (
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        {**BLOCK, "lru_width": 16, "head_dim": 8, "num_key_value_heads": 1},
        """
        model.layers.*.temporal_block: linear_y linear_x linear_out conv_1d
        model.layers.*.temporal_block.rg_lru: =input_gate_weight =recurrent_gate_weight
        model.layers.*.mlp_block: gate_proj up_proj down_proj
        """,
        """
        model: embed_tokens final_norm
        model.layers.*: temporal_pre_norm channel_pre_norm
        model.layers.*.temporal_block.rg_lru: =recurrent_param =input_gate_bias =recurrent_gate_bias
        """,
    ),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"hidden_size": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32},
        """
        transformer.h.*.self_attention: query_key_value dense
        transformer.h.*.mlp: dense_h_to_4h dense_4h_to_h
        """,
        """
        transformer: word_embeddings word_embeddings_layernorm ln_f
        transformer.h.*: input_layernorm post_attention_layernorm
        """,
    ),
}
