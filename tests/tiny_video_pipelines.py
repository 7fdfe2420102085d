"""Tiny text-to-video pipelines: Wan 2.1 and 2.2, LTX, HunyuanVideo and CogVideoX; three or more blocks a stack."""

from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from local_tokenizers import clip_tokenizer, llama_tokenizer, t5_tokenizer
from tiny_encoders import WIDTH, clip_text, llama, t5_encoder
from tiny_wan import WanSize, wan_pipeline

_HEADS = 2
_HEAD_DIM = 16
_AXES = (4, 6, 6)  # how a head's width is shared out over time, height and width
_WAN_SIZE = WanSize(blocks=4, heads=_HEADS, head_dim=24, ffn_dim=64, text_blocks=3, text_dim=WIDTH, vae_base_dim=4)


def wan_2_1() -> DiffusionPipeline:
    """Wan 2.1: one transformer."""
    return wan_pipeline(_WAN_SIZE, two_experts=False)


def wan_2_2() -> DiffusionPipeline:
    """Wan 2.2: two experts, the second below the boundary."""
    return wan_pipeline(_WAN_SIZE, two_experts=True)


def ltx() -> DiffusionPipeline:
    """LTX-Video: strong compression, T5 alone."""
    tokenizer = t5_tokenizer()
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        cross_attention_dim=_HEADS * _HEAD_DIM,
        num_layers=4,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    return LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=t5_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def hunyuan_video() -> DiffusionPipeline:
    """HunyuanVideo: three stacks (refiner, joint, single), Llama and CLIP."""
    tokenizer, clip = llama_tokenizer(), clip_tokenizer()
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        num_layers=3,
        num_single_layers=4,
        num_refiner_layers=3,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=_AXES,
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4
    )
    return HunyuanVideoPipeline(
        text_encoder=llama(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip_text(clip),
        tokenizer_2=clip,
    )


def cogvideox() -> DiffusionPipeline:
    """CogVideoX with rotary positions."""
    tokenizer = t5_tokenizer()
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=WIDTH,
        num_layers=4,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        use_rotary_positional_embeddings=True,
    )
    vae = AutoencoderKLCogVideoX(
        latent_channels=4, block_out_channels=(8, 8, 8, 16), layers_per_block=1, norm_num_groups=4
    )
    return CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=vae,
        transformer=transformer,
        scheduler=CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    )
