"""Tiny text encoders of every kind the tested pipelines use: three or more blocks, 32 to 64 wide."""

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

WIDTH = 32
_HEADS = 2
_DECODER_SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
}


def t5_encoder(tokenizer: PreTrainedTokenizerBase, width: int = WIDTH) -> T5EncoderModel:
    """T5 v1.1 with three blocks, the first with the relative bias."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // _HEADS,
        d_ff=2 * width,
        num_layers=3,
        num_heads=_HEADS,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return T5EncoderModel(config)


def clip_text(tokenizer: PreTrainedTokenizerBase) -> CLIPTextModel:
    """CLIP's text model with three layers."""
    return CLIPTextModel(_clip_config(tokenizer))


def clip_text_projected(tokenizer: PreTrainedTokenizerBase) -> CLIPTextModelWithProjection:
    """CLIP's text model with its projection."""
    return CLIPTextModelWithProjection(_clip_config(tokenizer))


def qwen_vision_language(tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL whole, with the vision tower that text-to-image never runs."""
    text = {
        **_DECODER_SIZES,
        "num_hidden_layers": 4,
        "vocab_size": len(tokenizer),
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": False,
    }
    vision = {
        "depth": 3,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_heads": _HEADS,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [2],
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return Qwen2_5_VLForConditionalGeneration(config)


def llama(tokenizer: PreTrainedTokenizerBase) -> LlamaModel:
    """A Llama of four layers; HunyuanVideo leaves the last two out."""
    return LlamaModel(LlamaConfig(**_DECODER_SIZES, num_hidden_layers=4, vocab_size=len(tokenizer)))


def qwen3(tokenizer: PreTrainedTokenizerBase) -> Qwen3Model:
    """A Qwen3 of three layers."""
    config = Qwen3Config(**_DECODER_SIZES, num_hidden_layers=3, vocab_size=len(tokenizer), head_dim=WIDTH // _HEADS)
    return Qwen3Model(config)


def _clip_config(tokenizer: PreTrainedTokenizerBase) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=_HEADS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
