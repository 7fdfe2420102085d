"""Tiny video pipelines of more classes: Mochi, Wan VACE, SkyReels and HunyuanVideo 1.5."""

from diffusers import (
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLMochi,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from transformers import ByT5Tokenizer, Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel, T5Config, T5EncoderModel

from local_tokenizers import qwen2_tokenizer, t5_tokenizer
from tiny_encoders import WIDTH, t5_encoder
from tiny_video_pipelines import wan_2_1

_HEADS, _HEAD_DIM, _LATENTS, _WAN_LATENTS = 2, 16, 4, 16
_WAN = {
    "num_attention_heads": _HEADS,
    "attention_head_dim": 12,
    "in_channels": _WAN_LATENTS,
    "out_channels": _WAN_LATENTS,
    "text_dim": WIDTH,
    "ffn_dim": WIDTH,
}


def mochi() -> DiffusionPipeline:
    """Mochi: an asymmetric transformer, T5, six frames a latent one."""
    tokenizer = t5_tokenizer()
    transformer = MochiTransformer3DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        num_layers=3,
        pooled_projection_dim=16,
        text_embed_dim=WIDTH,
        time_embed_dim=16,
    )
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4, layers_per_block=(1,) * 5
    )
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=t5_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def wan_vace() -> DiffusionPipeline:
    """Wan VACE: blocks beside the main stack see what is to be kept of a video, which may be none."""
    transformer = WanVACETransformer3DModel(num_layers=4, vace_layers=[0, 2], **_WAN)
    return WanVACEPipeline(**_wan_parts(), transformer=transformer)


def skyreels() -> DiffusionPipeline:
    """SkyReels V2."""
    return SkyReelsV2Pipeline(**_wan_parts(), transformer=SkyReelsV2Transformer3DModel(num_layers=3, **_WAN))


def skyreels_forcing() -> DiffusionPipeline:
    """SkyReels V2 with diffusion forcing, which steps frames at noise levels of their own."""
    transformer = SkyReelsV2Transformer3DModel(num_layers=3, **_WAN)
    return SkyReelsV2DiffusionForcingPipeline(**_wan_parts(), transformer=transformer)


def hunyuan_video_1_5() -> DiffusionPipeline:
    """HunyuanVideo 1.5: Qwen2.5-VL's text model and ByT5; a guider, which holds no weights, guides."""
    tokenizer, letters = qwen2_tokenizer(), ByT5Tokenizer()
    qwen = Qwen2_5_VLTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        rope_scaling={"rope_type": "default", "mrope_section": [2, 3, 3]},
    )
    byt5 = T5Config(vocab_size=len(letters), d_model=WIDTH, d_kv=_HEAD_DIM, d_ff=64, num_layers=3, num_heads=_HEADS)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=2 * _LATENTS + 1,
        out_channels=_LATENTS,
        num_attention_heads=_HEADS,
        attention_head_dim=_HEAD_DIM,
        num_layers=3,
        num_refiner_layers=3,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        image_embed_dim=12,
        rope_axes_dim=(4, 6, 6),
        target_size=16,
        task_type="t2v",
    )
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=_LATENTS,
        block_out_channels=(32,) * 4,
        layers_per_block=1,
        spatial_compression_ratio=8,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    return HunyuanVideo15Pipeline(
        text_encoder=Qwen2_5_VLTextModel(qwen),
        tokenizer=tokenizer,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=T5EncoderModel(byt5),
        tokenizer_2=letters,
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
    )


def _wan_parts() -> dict[str, object]:
    parts = wan_2_1().components
    return {name: parts[name] for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
