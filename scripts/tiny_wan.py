"""Small real Wan pipelines: one or two experts, UMT5, Wan VAE, a tokenizer made on the spot."""

from dataclasses import dataclass

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from local_tokenizers import t5_tokenizer

_BOUNDARY_RATIO = 0.875
_LATENT_CHANNELS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WanSize:
    """Widths and depths of a small Wan pipeline."""

    blocks: int
    heads: int
    head_dim: int
    ffn_dim: int
    text_blocks: int
    text_dim: int
    vae_base_dim: int


def wan_pipeline(size: WanSize, *, two_experts: bool) -> WanPipeline:
    """A Wan2.2-like pipeline with two experts, or a Wan2.1-like one."""
    return WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=_text_encoder(size),
        vae=_vae(size),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=_transformer(size),
        transformer_2=_transformer(size) if two_experts else None,
        boundary_ratio=_BOUNDARY_RATIO if two_experts else None,
    )


def _text_encoder(size: WanSize) -> UMT5EncoderModel:
    heads = 4
    config = UMT5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=size.text_dim,
        d_kv=size.text_dim // heads,
        d_ff=2 * size.text_dim,
        num_layers=size.text_blocks,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    return UMT5EncoderModel(config)


def _transformer(size: WanSize) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=size.heads,
        attention_head_dim=size.head_dim,
        in_channels=_LATENT_CHANNELS,
        out_channels=_LATENT_CHANNELS,
        text_dim=size.text_dim,
        ffn_dim=size.ffn_dim,
        num_layers=size.blocks,
    )


def _vae(size: WanSize) -> AutoencoderKLWan:
    return AutoencoderKLWan(base_dim=size.vae_base_dim, z_dim=_LATENT_CHANNELS, dim_mult=[1, 2, 4, 4], num_res_blocks=1)
