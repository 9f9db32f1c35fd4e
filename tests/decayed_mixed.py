"""Which parameters of models with two halves, a state or speech decay, and which do not: tiny ones of transformers.

{model: (class, configuration, its sizes, what decays, what does not)}. A line is a layer and its parameters: `dense` is
dense.weight, `=A_log` the parameter A_log itself; `*` is any number. Biases, which never decay, are left out.
"""

BLOCK = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 32}
IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}

MODELS = {
    "opt": (
        "OPTForCausalLM",
        "OPTConfig",
        {**BLOCK, "ffn_dim": 32, "word_embed_proj_dim": 8, "max_position_embeddings": 8},
        """
        model.decoder: project_out project_in
        model.decoder.layers.*.self_attn: k_proj v_proj q_proj out_proj
        model.decoder.layers.*: fc1 fc2
        """,
        """
        model.decoder: embed_tokens embed_positions final_layer_norm
        model.decoder.layers.*: self_attn_layer_norm final_layer_norm
        """,
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 32},
        """
        encoder.block.*.layer.*.SelfAttention: q k v o
        encoder.block.*.layer.*.DenseReluDense: wi wo
        decoder.block.*.layer.*.SelfAttention: q k v o
        decoder.block.*.layer.*.EncDecAttention: q k v o
        decoder.block.*.layer.*.DenseReluDense: wi wo
        """,
        """
        .: shared
        encoder.block.*.layer.*.SelfAttention: relative_attention_bias
        encoder.block.*.layer.*: layer_norm
        encoder: final_layer_norm
        decoder.block.*.layer.*.SelfAttention: relative_attention_bias
        decoder.block.*.layer.*: layer_norm
        decoder: final_layer_norm
        """,
    ),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 32, "state_size": 4},
        """
        backbone.layers.*.mixer: conv1d in_proj x_proj dt_proj out_proj
        """,
        """
        backbone: embeddings norm_f
        backbone.layers.*: norm
        backbone.layers.*.mixer: =A_log =D
        """,
    ),
    "mamba2": (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "vocab_size": 32,
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "expand": 2,
        },
        """
        backbone.layers.*.mixer: conv1d in_proj out_proj
        .: lm_head
        """,
        """
        backbone: embeddings norm_f
        backbone.layers.*: norm
        backbone.layers.*.mixer: =dt_bias =A_log =D norm
        """,
    ),
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "vocab_size": 32,
            "num_key_value_heads": 1,
            "max_position_embeddings": 16,
            "pad_token_id": 0,
            "head_dim": 8,
            "num_experts": 2,
            "mamba_d_state": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
        },
        """
        model.layers.*.mamba: conv1d in_proj x_proj dt_proj out_proj
        model.layers.*.feed_forward: gate_proj up_proj down_proj router
        model.layers.*.self_attn: q_proj k_proj v_proj o_proj
        model.layers.*.feed_forward.experts: =gate_up_proj =down_proj
        .: lm_head
        """,
        """
        model: embed_tokens final_layernorm
        model.layers.*.mamba: =A_log =D dt_layernorm b_layernorm c_layernorm
        model.layers.*: input_layernorm pre_ff_layernorm
        """,
    ),
    "clip": (
        "CLIPModel",
        "CLIPConfig",
        {"text_config": {**BLOCK, "max_position_embeddings": 8}, "vision_config": IMAGE, "projection_dim": 8},
        """
        text_model.encoder.layers.*.self_attn: k_proj v_proj q_proj out_proj
        text_model.encoder.layers.*.mlp: fc1 fc2
        vision_model.embeddings: patch_embedding
        vision_model.encoder.layers.*.self_attn: k_proj v_proj q_proj out_proj
        vision_model.encoder.layers.*.mlp: fc1 fc2
        .: visual_projection text_projection
        """,
        """
        .: =logit_scale
        text_model.embeddings: token_embedding position_embedding
        text_model.encoder.layers.*: layer_norm1 layer_norm2
        text_model: final_layer_norm
        vision_model.embeddings: =class_embedding position_embedding
        vision_model: pre_layrnorm post_layernorm
        vision_model.encoder.layers.*: layer_norm1 layer_norm2
        """,
    ),
    "siglip": (
        "SiglipModel",
        "SiglipConfig",
        {"text_config": {**BLOCK, "max_position_embeddings": 8}, "vision_config": IMAGE},
        """
        text_model.encoder.layers.*.self_attn: k_proj v_proj q_proj out_proj
        text_model.encoder.layers.*.mlp: fc1 fc2
        text_model: head
        vision_model.embeddings: patch_embedding
        vision_model.encoder.layers.*.self_attn: k_proj v_proj q_proj out_proj
        vision_model.encoder.layers.*.mlp: fc1 fc2
        vision_model.head.attention: =in_proj_weight out_proj
        vision_model.head.mlp: fc1 fc2
        """,
        """
        .: =logit_scale =logit_bias
        text_model.embeddings: token_embedding position_embedding
        text_model.encoder.layers.*: layer_norm1 layer_norm2
        text_model: final_layer_norm
        vision_model.embeddings: position_embedding
        vision_model.encoder.layers.*: layer_norm1 layer_norm2
        vision_model: post_layernorm
        vision_model.head: =probe layernorm
        vision_model.head.attention: =in_proj_bias
        """,
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            "vocab_size": 32,
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_source_positions": 8,
            "max_target_positions": 8,
            "pad_token_id": 0,
            "decoder_start_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        """
        model.encoder: conv1 conv2
        model.encoder.layers.*.self_attn: k_proj v_proj q_proj out_proj
        model.encoder.layers.*: fc1 fc2
        model.decoder.layers.*.self_attn: k_proj v_proj q_proj out_proj
        model.decoder.layers.*.encoder_attn: k_proj v_proj q_proj out_proj
        model.decoder.layers.*: fc1 fc2
        """,
        """
        model.encoder.layers.*: self_attn_layer_norm final_layer_norm
        model.encoder: layer_norm
        model.decoder: embed_tokens embed_positions layer_norm
        model.decoder.layers.*: self_attn_layer_norm encoder_attn_layer_norm final_layer_norm
        """,
    ),
    "w2vpre": (
        "Wav2Vec2ForPreTraining",
        "Wav2Vec2Config",
        {
            **BLOCK,
            "conv_dim": [8, 8],
            "conv_kernel": [4, 4],
            "conv_stride": [2, 2],
            "num_conv_pos_embeddings": 4,
            "num_conv_pos_embedding_groups": 2,
            "num_feat_extract_layers": 2,
            "codevector_dim": 8,
            "num_codevectors_per_group": 4,
            "proj_codevector_dim": 8,
        },
        """
        wav2vec2.feature_extractor.conv_layers.*: conv
        wav2vec2.feature_projection: projection
        wav2vec2.encoder.pos_conv_embed.conv.weight: =g
        wav2vec2.encoder.layers.*.attention: k_proj v_proj q_proj out_proj
        wav2vec2.encoder.layers.*.feed_forward: intermediate_dense output_dense
        quantizer: weight_proj
        .: project_hid project_q
        """,
        """
        wav2vec2: =masked_spec_embed
        wav2vec2.feature_extractor.conv_layers.*: layer_norm
        wav2vec2.feature_projection: layer_norm
        wav2vec2.encoder.pos_conv_embed.conv.weight: =v
        wav2vec2.encoder: layer_norm
        wav2vec2.encoder.layers.*: layer_norm final_layer_norm
        quantizer: =codevectors
        """,
    ),
}
