"""Text encoders that several published repositories share, with their configurations."""

from collections.abc import Mapping
from typing import Any

from published.repository import GB, Component, Dtype, Weights

_T5_XXL: Mapping[str, Any] = {
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new",
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "is_gated_act": True,
    "layer_norm_epsilon": 1e-06,
    "num_decoder_layers": 24,
    "num_heads": 64,
    "num_layers": 24,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": False,
    "use_cache": True,
}
_CLIP: Mapping[str, Any] = {
    "model_type": "clip_text_model",
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "pad_token_id": 1,
    "vocab_size": 49408,
}


def umt5_xxl(dtype: Dtype, published_gb: float) -> Component:
    """Wan's text encoder: float32 in 2.1, bfloat16 in 2.2."""
    config = {
        **_T5_XXL,
        "model_type": "umt5",
        "scalable_attention": True,
        "tokenizer_class": "T5Tokenizer",
        "vocab_size": 256384,
    }
    return Component(
        library="transformers",
        class_name="UMT5EncoderModel",
        config=config,
        stored={"": Weights(dtype=dtype, published_gb=published_gb)},
        shard_bytes=5 * GB,
    )


def t5_v1_1_xxl() -> Component:
    """FLUX.1's second text encoder."""
    return Component(
        library="transformers",
        class_name="T5EncoderModel",
        config={**_T5_XXL, "model_type": "t5", "output_past": True, "vocab_size": 32128},
        stored={"": Weights(dtype="BF16", published_gb=9.525)},
        shard_bytes=5 * GB,
    )


def clip_vit_l(stored: Mapping[str, Weights]) -> Component:
    """OpenAI's CLIP ViT-L/14 text model."""
    config = {
        **_CLIP,
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "projection_dim": 768,
    }
    return Component(library="transformers", class_name="CLIPTextModel", config=config, stored=stored)


def open_clip_vit_g(stored: Mapping[str, Weights]) -> Component:
    """OpenCLIP's ViT-bigG/14 text model with its projection: SDXL's second text encoder."""
    config = {
        **_CLIP,
        "hidden_act": "gelu",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 20,
        "num_hidden_layers": 32,
        "projection_dim": 1280,
    }
    return Component(library="transformers", class_name="CLIPTextModelWithProjection", config=config, stored=stored)
