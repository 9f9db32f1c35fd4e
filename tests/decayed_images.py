"""Which parameters of models of images decay, and which do not: tiny models of transformers.

{model: (class, configuration, its sizes, what decays, what does not)}. A line is a layer and its parameters: `dense` is
dense.weight, `=A_log` the parameter A_log itself; `*` is any number. Biases, which never decay, are left out.
"""

IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}

MODELS = {
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        IMAGE,
        """
        vit.embeddings.patch_embeddings: projection
        vit.layers.*.attention: q_proj k_proj v_proj o_proj
        vit.layers.*.mlp: fc1 fc2
        .: classifier
        """,
        """
        vit.embeddings: =cls_token =position_embeddings
        vit.layers.*: layernorm_before layernorm_after
        vit: layernorm
        """,
    ),
    "beit": (
        "BeitForImageClassification",
        "BeitConfig",
        {
            **IMAGE,
            "use_relative_position_bias": True,
            "use_mask_token": True,
            "use_absolute_position_embeddings": True,
            "vocab_size": 32,
        },
        """
        beit.embeddings.patch_embeddings: projection
        beit.layers.*.attention: q_proj k_proj v_proj o_proj
        beit.layers.*.mlp: fc1 fc2
        .: classifier
        """,
        """
        beit.embeddings: =cls_token =mask_token =position_embeddings
        beit.layers.*: =lambda_1 =lambda_2 layernorm_before layernorm_after
        beit.layers.*.relative_position_bias: =relative_position_bias_table
        beit.pooler: layernorm
        """,
    ),
    "dinov2": (
        "Dinov2ForImageClassification",
        "Dinov2Config",
        IMAGE,
        """
        dinov2.embeddings.patch_embeddings: projection
        dinov2.encoder.layer.*.attention: q_proj k_proj v_proj o_proj
        dinov2.encoder.layer.*.mlp: fc1 fc2
        .: classifier
        """,
        """
        dinov2.embeddings: =cls_token =mask_token =position_embeddings
        dinov2.encoder.layer.*: norm1 norm2
        dinov2.encoder.layer.*.layer_scale1: =lambda1
        dinov2.encoder.layer.*.layer_scale2: =lambda1
        dinov2: layernorm
        """,
    ),
    "timesformer": (
        "TimesformerForVideoClassification",
        "TimesformerConfig",
        {**IMAGE, "num_frames": 2},
        """
        timesformer.embeddings.patch_embeddings: projection
        timesformer.encoder.layer.*.attention.attention: qkv
        timesformer.encoder.layer.*.attention.output: dense
        timesformer.encoder.layer.*.intermediate: dense
        timesformer.encoder.layer.*.output: dense
        timesformer.encoder.layer.*.temporal_attention.attention: qkv
        timesformer.encoder.layer.*.temporal_attention.output: dense
        timesformer.encoder.layer.*: temporal_dense
        .: classifier
        """,
        """
        timesformer.embeddings: =cls_token =position_embeddings =time_embeddings
        timesformer.encoder.layer.*: layernorm_before layernorm_after temporal_layernorm
        timesformer: layernorm
        """,
    ),
    "swin": (
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 16,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 2,
            "use_absolute_embeddings": True,
        },
        """
        swin.embeddings.patch_embeddings: projection
        swin.encoder.layers.*.blocks.*.attention: q_proj k_proj v_proj o_proj
        swin.encoder.layers.*.blocks.*.mlp: fc1 fc2
        swin.encoder.layers.*.downsample: reduction
        .: classifier
        """,
        """
        swin.embeddings: =position_embeddings norm
        swin.encoder.layers.*.blocks.*.attention.relative_position_bias: =relative_position_bias_table
        swin.encoder.layers.*.blocks.*: layernorm_before layernorm_after
        swin.encoder.layers.*.downsample: norm
        swin: layernorm
        """,
    ),
    "groupvit": (
        "GroupViTVisionModel",
        "GroupViTVisionConfig",
        {
            "hidden_size": 16,
            "intermediate_size": 32,
            "depths": [1, 1],
            "num_hidden_layers": 2,
            "num_group_tokens": [2, 0],
            "num_output_groups": [2, 2],
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        },
        """
        vision_model.embeddings.patch_embeddings: projection
        vision_model.encoder.stages.*.layers.*.self_attn: k_proj v_proj q_proj out_proj
        vision_model.encoder.stages.*.layers.*.mlp: fc1 fc2
        vision_model.encoder.stages.*.downsample.mlp_inter: fc1 fc2
        vision_model.encoder.stages.*.downsample.pre_assign_attn.attn: k_proj v_proj q_proj out_proj
        vision_model.encoder.stages.*.downsample.pre_assign_attn.mlp: fc1 fc2
        vision_model.encoder.stages.*.downsample.assign: q_proj k_proj v_proj proj
        vision_model.encoder.stages.*.downsample.mlp_channels: fc1 fc2
        """,
        """
        vision_model.embeddings: =position_embeddings layernorm
        vision_model.encoder.stages.*: =group_token
        vision_model.encoder.stages.*.layers.*: layer_norm1 layer_norm2
        vision_model.encoder.stages.*.downsample: norm_tokens norm_post_tokens norm_x norm_new_x
        vision_model.encoder.stages.*.downsample.pre_assign_attn: norm2 norm_post
        vision_model: layernorm
        """,
    ),
    "resnet": (
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [16, 16], "depths": [1, 1]},
        """
        resnet.embedder.embedder: convolution
        resnet.encoder.stages.*.layers.*.shortcut: convolution
        resnet.encoder.stages.*.layers.*.layer.*: convolution
        classifier: *
        """,
        """
        resnet.embedder.embedder: normalization
        resnet.encoder.stages.*.layers.*.shortcut: normalization
        resnet.encoder.stages.*.layers.*.layer.*: normalization
        """,
    ),
    "convnext": (
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        """
        convnext.embeddings: patch_embeddings
        convnext.encoder.stages.*.layers.*: dwconv pwconv1 pwconv2
        convnext.encoder.stages.*.downsampling_layer: *
        .: classifier
        """,
        """
        convnext.embeddings: layernorm
        convnext.encoder.stages.*.layers.*: =layer_scale_parameter layernorm
        convnext.encoder.stages.*.downsampling_layer: *
        convnext: layernorm
        """,
    ),
}
